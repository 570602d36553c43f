-- Certificates of CAs and CRL issuers below an anchor that the operator gave: hexadecimal DER, with spaces between.
ALTER TABLE anchors ADD COLUMN issuers TEXT COLLATE "C" NOT NULL DEFAULT '';
