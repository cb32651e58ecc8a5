-- +goose Up

-- A merchant's feed: its events in the order in which the projector has made them
-- visible (internal/readmodel). A position is drawn from the merchant's row of
-- feed_heads, which stays locked until the commit: so positions have no gap, whoever
-- sees one sees all before it, and a reader that stands behind one misses nothing.
CREATE TABLE feed_heads (
    merchant_id text COLLATE "C" PRIMARY KEY,
    position    bigint NOT NULL CHECK (position >= 1)
) WITH (fillfactor = 50); -- a hot row: leave room for HOT updates

-- Names a line of payment_timeline. Append-only but for retention, which takes the
-- lowest positions. A rebuild of the read model leaves both tables alone.
CREATE TABLE feed_events (
    merchant_id text COLLATE "C" NOT NULL,
    position    bigint NOT NULL,
    payment_id  text COLLATE "C" NOT NULL,
    sequence    bigint NOT NULL,
    fed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, position)
);
SELECT isolate_tenants('feed_heads'), isolate_tenants('feed_events');

-- Whether the line stands in the feed: a rebuild may write lines before the projector
-- comes to their events, and what was there before the feed is not in it.
ALTER TABLE payment_timeline ADD COLUMN fed boolean NOT NULL DEFAULT true;
ALTER TABLE payment_timeline ALTER COLUMN fed SET DEFAULT false;

-- +goose Down
ALTER TABLE payment_timeline DROP COLUMN fed;
DROP TABLE feed_events, feed_heads;
