package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// A key that two persons make is known to neither of them (split knowledge). Who proposes it
// gets the first part of its text, who approves it the second. The holder puts one directly
// after the other. 65 bits are missing to the first person and 63 to the second, who knows the
// check digits.
const (
	firstPart = 19 // characters of the secret
	seedBytes = 32
)

// ApprovalWithin is how long a key can wait for its approval.
const ApprovalWithin = "24 hours"

// newSplitKey makes a key that waits for a second person, and the first part of its text.
func newSplitKey(gen payment.Generator, pepper *secret.Pepper, spec KeySpec) (part string, k Key, err error) {
	if spec.Mode != ModeTest && spec.Mode != ModeLive {
		return "", Key{}, errors.New("an API key's mode is test or live")
	}
	seed := make([]byte, seedBytes)
	if _, err := io.ReadFull(gen.Random, seed); err != nil {
		return "", Key{}, fmt.Errorf("no randomness for an API key: %w", err)
	}
	id := gen.New(payment.PrefixKey)
	text := grown(spec.Mode, id, pepper.MAC(seedData(id, seed)))
	if k, err = StoredKey(pepper, text, spec); err != nil {
		return "", Key{}, err
	}
	k.Seed = seed
	part, _ = parts(text)
	return part, k, nil
}

func seedData(id string, seed []byte) []byte { return append([]byte("seed of "+id+"|"), seed...) }

// grown is the key's text from the MAC of its seed, without Tink's prefix of 5 bytes.
func grown(mode Mode, id string, mac []byte) string {
	return FormatKey(mode, id, [secretBytes]byte(mac[len(mac)-secretBytes:]))
}

func parts(text string) (first, second string) {
	at := len(text) - checkLength - secretLength + firstPart
	return text[:at], text[at:]
}

// secondPart makes the text once more, by the key of the pepper that made it.
func (k *Keys) secondPart(id string, seed, mac []byte) (string, error) {
	for _, of := range k.pepper.MACs(seedData(id, seed)) {
		for _, mode := range []Mode{ModeTest, ModeLive} {
			text := grown(mode, id, of)
			if k.pepper.Verify(mac, []byte(text[:len(text)-checkLength])) {
				_, second := parts(text)
				return second, nil
			}
		}
	}
	return "", payment.Errorf(payment.CodeAPIKeyInactive,
		"This API key was proposed under a pepper that is gone: revoke it, and make another.")
}

// Approve makes a proposed key work, and gives the second part of its text. The approver is
// another person than the one who proposed the key. A key that replaces another takes its
// place now. Errors: CodeNotFound, CodeAPIKeyInactive, CodeSecondOperator.
func (k *Keys) Approve(ctx context.Context, by By, id string) (part string, approved APIKey, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) (err error) {
		part, approved, err = k.approve(ctx, tx, by, id)
		return err
	})
	if err != nil {
		return "", APIKey{}, err
	}
	return part, approved, nil
}

func (k *Keys) approve(ctx context.Context, tx pgx.Tx, by By, id string) (part string, approved APIKey, err error) {
	var (
		seed, mac []byte
		waits     bool
		replaces  *string
		overlap   *time.Duration
		proposer  string
	)
	err = tx.QueryRow(ctx, `
		SELECT seed, mac, replaces, overlap,
			seed IS NOT NULL AND created_at > now() - $2::interval AND (expires_at IS NULL OR expires_at > now()),
			coalesce((SELECT holder FROM key_acts WHERE key_id = k.id AND action IN ('make', 'rotate') ORDER BY id LIMIT 1), '')
		FROM api_keys k WHERE id = $1 FOR NO KEY UPDATE`, id, ApprovalWithin).Scan(&seed, &mac, &replaces, &overlap, &waits, &proposer)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", APIKey{}, errNoKey()
	case err != nil:
		return "", APIKey{}, fmt.Errorf("lock api key: %w", err)
	case !waits:
		return "", APIKey{}, payment.Errorf(payment.CodeAPIKeyInactive,
			"This API key does not wait for an approval: it has one, is revoked or expired, or waited for more than %s.", ApprovalWithin)
	case proposer == "" || by.Holder == "" || payment.SamePerson(proposer, by.Holder):
		return "", APIKey{}, payment.Errorf(payment.CodeSecondOperator, "Another person than the one who proposed this API key has to approve it.")
	}
	if part, err = k.secondPart(id, seed, mac); err != nil {
		return "", APIKey{}, err
	}
	if _, err := tx.Exec(ctx, `UPDATE api_keys SET approved_at = now(), seed = NULL WHERE id = $1`, id); err != nil {
		return "", APIKey{}, fmt.Errorf("approve api key: %w", err)
	}
	if replaces != nil {
		if _, err := lockActive(ctx, tx, *replaces); err != nil {
			return "", APIKey{}, err
		}
		if err := retire(ctx, tx, *replaces, id, *overlap); err != nil {
			return "", APIKey{}, err
		}
	}
	if approved, err = readKey(ctx, tx, id); err != nil {
		return "", APIKey{}, err
	}
	return part, approved, k.record(ctx, tx, by, act{key: approved, action: ActApprove})
}

// first stores an operator's key that works at once, if fewer than two persons have ever held one.
func (k *Keys) first(ctx context.Context, tx pgx.Tx, by By, key Key) (APIKey, error) {
	// One at a time: two at once would each see one person.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('first operators', 0))`); err != nil {
		return APIKey{}, fmt.Errorf("lock the first operators: %w", err)
	}
	var persons int
	if err := tx.QueryRow(ctx, `
		SELECT count(DISTINCT lower(holder)) FROM api_keys WHERE role = 'operator' AND approved_at IS NOT NULL`).Scan(&persons); err != nil {
		return APIKey{}, fmt.Errorf("count operators: %w", err)
	}
	if persons >= 2 {
		return APIKey{}, payment.Errorf(payment.CodeSecondOperator, "Two persons have operator keys: one of them makes a key, and another approves it.")
	}
	return k.store(ctx, tx, by, key)
}

// store keeps a key and the act of making it.
func (k *Keys) store(ctx context.Context, tx pgx.Tx, by By, key Key) (APIKey, error) {
	if err := InsertKey(ctx, tx, key); err != nil {
		return APIKey{}, err
	}
	made, err := readKey(ctx, tx, key.ID)
	if err != nil {
		return APIKey{}, err
	}
	return made, k.record(ctx, tx, by, act{key: made, action: ActMake})
}

// Seed stores a key of the demo, which works at once: an operator's as Bootstrap does, and the
// first one of a merchant. A key that exists stays as it is. Error: CodeSecondOperator.
func (k *Keys) Seed(ctx context.Context, by By, key Key) (made bool, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) error {
		var exists, others bool
		if err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM api_keys WHERE id = $1), EXISTS (SELECT FROM api_keys WHERE merchant_id = $2)`,
			key.ID, key.MerchantID).Scan(&exists, &others); err != nil {
			return fmt.Errorf("look up api key: %w", err)
		}
		if made = !exists; exists {
			return nil
		}
		if !key.Role.OfMerchant() {
			_, err := k.first(ctx, tx, by, key)
			return err
		}
		if others {
			return payment.Errorf(payment.CodeSecondOperator, "The merchant has a key: another one takes two operators.")
		}
		_, err := k.store(ctx, tx, by, key)
		return err
	})
	return made && err == nil, err
}
