-- +goose Up
-- The version of the API that a key's requests are answered in where they name none. The keys that there are, and
-- those that a process from before still makes, know the first one.
ALTER TABLE api_keys ADD COLUMN api_version date NOT NULL DEFAULT '2026-11-01';

-- +goose Down
ALTER TABLE api_keys DROP COLUMN api_version;
