-- +goose Up
SET LOCAL lock_timeout = '5s';

-- A webhook's URL can hold a token. The whole URL is encrypted; url is what anybody may see of
-- it: scheme, host and port. A row from before keeps its URL in url until `payments secrets
-- reencrypt` seals it, so that processes of the version before go on delivering.
ALTER TABLE webhook_endpoints
    ADD COLUMN url_ciphertext bytea CHECK (octet_length(url_ciphertext) BETWEEN 31 AND 4096),
    ADD CONSTRAINT webhook_endpoints_url_sealed CHECK (url_ciphertext IS NULL OR url !~ '^https?://[^/?]*[/?]');

-- A key is found by its MAC, which only the whole key gives.
CREATE INDEX api_keys_mac ON api_keys (mac);

-- How often each key of the encryption keyset has encrypted, in all processes: one key of
-- AES-GCM with random nonces is for at most 2^32 messages.
CREATE TABLE encryption_uses (
    key         text COLLATE "C" PRIMARY KEY CHECK (key ~ '^[0-9a-f]{8}$'),
    encryptions bigint NOT NULL CHECK (encryptions >= 0)
);

-- +goose Down
DROP TABLE encryption_uses;
DROP INDEX api_keys_mac;
-- A URL that is sealed cannot be opened here: its endpoint is told to be disabled.
UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'failing' WHERE url_ciphertext IS NOT NULL AND disabled_at IS NULL;
ALTER TABLE webhook_endpoints DROP COLUMN url_ciphertext;
