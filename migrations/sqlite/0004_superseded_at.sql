-- Since when another certificate is in a certificate's place: how long it may still be followed, and how many followed each
-- other. The overlap of what was superseded before this is over.
ALTER TABLE certificates ADD COLUMN superseded_at BIGINT;
UPDATE certificates SET superseded_at = not_before WHERE state = 'SUPERSEDED';
