-- +goose Up

-- Refunds that a person of the service has given, not the merchant: what budgets are counted by.
CREATE TABLE staff_refunds (
    merchant_id text COLLATE "C" NOT NULL,
    refund_id   text COLLATE "C" NOT NULL,
    payment_id  text COLLATE "C" NOT NULL,
    -- The API key, and its holder at the time.
    operator    text COLLATE "C" NOT NULL REFERENCES api_keys (id),
    holder      text COLLATE "C" NOT NULL CHECK (is_holder(holder)),
    currency    text NOT NULL CHECK (currency = ANY (currencies())),
    amount      minor_units NOT NULL CHECK (amount >= 1),
    -- In UTC, by the database's clock.
    day         date NOT NULL,
    PRIMARY KEY (merchant_id, refund_id),
    FOREIGN KEY (merchant_id, refund_id) REFERENCES refunds (merchant_id, id)
);
CREATE INDEX staff_refunds_payment ON staff_refunds (merchant_id, payment_id);
-- Case does not part persons.
CREATE INDEX staff_refunds_person ON staff_refunds (lower(holder), day, currency);
SELECT isolate_tenants('staff_refunds');
CREATE TRIGGER staff_refunds_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON staff_refunds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();

-- +goose Down
DROP TABLE staff_refunds;
