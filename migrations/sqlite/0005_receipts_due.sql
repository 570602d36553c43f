-- A receipt is due for what went out, whether the claim is still known or not: a rolled-back database forgets claims.
DROP INDEX credentials_receipt_due;
CREATE INDEX credentials_receipt_due ON credentials (custody_ended_at)
    WHERE custody_ended_at IS NOT NULL AND custody_holder_copy <> 'NEVER_DELIVERED' AND receipt IS NULL;
