//! SQL of column `jobs.transcript`.

use jiff::Timestamp;
use serde_json::{Value, json};
use trustfleet_model::{ids::JobId, job::JobState, transcript::Transcript};

use super::{DbError, TenantTx, column::Columns, tx::Id};

/// Version of the column's form.
const VERSION: u16 = 1;

/// A job's transcript, and what tells why there is none.
#[derive(Clone, Debug)]
pub struct JobTranscript {
    /// Where the job stands.
    pub state: JobState,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Days that the tenant keeps transcripts.
    pub kept_days: u16,
    /// What went to and fro.
    pub transcript: Option<Transcript>,
}

/// A transcript as the column holds it, tagged with its version.
pub(crate) fn stored_transcript(transcript: &Transcript) -> Value {
    json!({ "v": VERSION, "entries": transcript.entries() })
}

impl TenantTx {
    /// The transcript of a job.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; a column that cannot be read.
    pub async fn job_transcript_fetch(&self, id: JobId) -> Result<JobTranscript, DbError> {
        let sql = "/* job_transcript_fetch */ SELECT j.job_id, j.state, j.finished_at, j.transcript, t.transcript_days
                   FROM jobs j JOIN tenants t ON t.tenant_id = j.tenant_id WHERE j.tenant_id = $1 AND j.job_id = $2";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "job" })?;
        let columns = Columns::new(&row, "jobs", "job_id");
        let state: &str = columns.read("state")?;
        let known = JobState::ALL.into_iter().find(|known| known.as_str() == state);
        let stored: Option<Value> = columns.read("transcript")?;
        if let Some(version) = stored.as_ref().map(|stored| &stored["v"])
            && version != &Value::from(VERSION)
        {
            let text = format!("version {version} is unknown to this program: update it");
            return Err(columns.wrong("transcript", text));
        }
        let transcript = stored.map(serde_json::from_value).transpose();
        Ok(JobTranscript {
            state: known.ok_or_else(|| columns.wrong("state", format!("the word {state:?} is unknown")))?,
            finished_at: columns.read("finished_at")?,
            kept_days: columns.parse::<i32, u16>("transcript_days")?,
            transcript: transcript.map_err(|error| columns.wrong("transcript", error))?,
        })
    }
}
