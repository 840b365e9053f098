//! Kept transactions: whatever the disk gives back is resumed or refused.

use trustfleet_cmp::{Input, Signer, Step, Transaction, TransactionRecord, protection::Hash};

use crate::world::{Counted, begin, mac, pbm, world};

/// Resumes the record in the JSON, by every credentials and with every input.
pub fn records(input: &[u8]) {
    let Ok(record) = serde_json::from_slice::<TransactionRecord>(input) else { return };
    let kept = serde_json::to_string(&record).expect("what was read can be written");
    let read: TransactionRecord = serde_json::from_str(&kept).expect("and read again");
    assert_eq!(serde_json::to_string(&read).expect("and written again"), kept);
    let _ = (record.transaction_id(), record.kind(), record.awaits());
    let world = world();
    for credentials in [mac(pbm(Hash::Sha256)), world.signature()] {
        for inputs in [Input::TimerFired, Input::Stop, Input::Response(b""), Input::Response(input)] {
            let (record, acceptance) = (record.clone(), world.acceptance());
            let resumed = if record.public_key_der() == world.device.public_key_der() {
                Transaction::resume(record, credentials.clone(), acceptance, world.device.as_ref(), begin())
            } else {
                Transaction::resume_keyless(record, credentials.clone(), acceptance, begin())
            };
            if let Ok(Step::Send { transaction, .. } | Step::Wait { transaction, .. }) = resumed {
                let kind = transaction.record().kind();
                match transaction.handle(inputs, &mut Counted::default(), begin()) {
                    Step::Failed { error, .. } => crate::texts::harmless(&error.to_string()),
                    Step::Send { .. } | Step::Wait { .. } => {}
                    other => panic!("{kind:?} ended well without an answer: {other:?}"),
                }
            }
        }
    }
}
