-- +goose Up
-- What is reserved can come back: with it, no more can be on hand than the most that
-- may be, else the release would be refused for ever.
ALTER TABLE stock ADD CONSTRAINT stock_room CHECK (on_hand + reserved <= 1000000000);

-- Parked messages are kept in the order in which they came. Offsets are not that
-- order when the topic was made anew, and count from 0 again: the same offset is then
-- another message.
ALTER TABLE inbox_parked ADD COLUMN arrival bigint;
UPDATE inbox_parked p SET arrival = o.n
FROM (SELECT parked_key, "offset", partition, row_number() OVER (ORDER BY "offset", partition) AS n FROM inbox_parked) o
WHERE p.parked_key = o.parked_key AND p."offset" = o."offset" AND p.partition = o.partition;
ALTER TABLE inbox_parked ALTER COLUMN arrival SET NOT NULL;
ALTER TABLE inbox_parked ALTER COLUMN arrival ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('inbox_parked', 'arrival'), coalesce(max(arrival), 0) + 1, false) FROM inbox_parked;
ALTER TABLE inbox_parked DROP CONSTRAINT inbox_parked_pkey, ADD PRIMARY KEY (parked_key, arrival);
-- One that comes again is the same message at the same place.
CREATE UNIQUE INDEX inbox_parked_once ON inbox_parked (parked_key, partition, "offset", sha256(value), coalesce(headers->>'ce_id', ''));

-- +goose Down
DROP INDEX inbox_parked_once;
-- Of two logs' messages at one offset only the newer can stay.
DELETE FROM inbox_parked p USING inbox_parked q
WHERE p.parked_key = q.parked_key AND p."offset" = q."offset" AND p.partition = q.partition AND p.arrival < q.arrival;
ALTER TABLE inbox_parked DROP CONSTRAINT inbox_parked_pkey, ADD PRIMARY KEY (parked_key, "offset", partition), DROP COLUMN arrival;
ALTER TABLE stock DROP CONSTRAINT stock_room;
