-- Trustpoints that were there before leases came (V23) are looked at anew: the owner, whom row level security shows nothing, did
-- not reach them then. One policy for the time of this migration lets it.

CREATE POLICY fill_in ON trustpoints TO CURRENT_USER USING (true) WITH CHECK (true);
UPDATE trustpoints SET planned_revision = 0 WHERE planned_revision <> 0;
DROP POLICY fill_in ON trustpoints;
