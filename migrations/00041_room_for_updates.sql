-- +goose Up

-- While an order's saga runs, the order's newest sequence and its reservation's state change, and
-- neither is in an index. So these updates can be heap-only (HOT) where the page has room for the
-- new version. Pages that are full already stay so.

SET LOCAL lock_timeout = '5s';
ALTER TABLE orders SET (fillfactor = 75);
ALTER TABLE stock_reservations SET (fillfactor = 60);

-- +goose Down

SET LOCAL lock_timeout = '5s';
ALTER TABLE stock_reservations RESET (fillfactor);
ALTER TABLE orders RESET (fillfactor);
