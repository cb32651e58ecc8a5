package simulator

import (
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Buckets of the ledger. A sequence is 8 bytes, big-endian, and begins at 1.
var (
	metaBucket   = []byte("meta")         // "format" → ledgerFormat, "account" → the ledger's own id
	entryBucket  = []byte("operations")   // sequence → entry as JSON
	idBucket     = []byte("by_id")        // operation id → sequence
	keyBucket    = []byte("by_key")       // idempotency key → sequence
	refBucket    = []byte("by_reference") // reference, NUL, sequence → nothing
	parentBucket = []byte("by_parent")    // parent's id, NUL, sequence → nothing
	struckBucket = []byte("struck")       // idempotency key → number of requests struck, one byte; gone once applied
	noticeBucket = []byte("notices")      // sequence of the operation → notice as JSON; gone once delivered
)

const ledgerFormat = "1"

// lockWait is how long Open waits for another simulator to let go of the file.
const lockWait = time.Second

// ledger is the durable list of operations. Each submit is one transaction that
// has reached the disk before it returns; concurrent ones share an fsync.
type ledger struct {
	db     *bbolt.DB
	clock  Clock
	random *rand.Rand // only inside write transactions, which exclude each other

	account  string        // told apart from every other ledger by this id, for as long as its file lives
	lifetime time.Duration // of an authorization
	notify   bool          // every operation newly written is to be notified
}

func openLedger(path string, cfg Config, source rand.Source) (*ledger, error) {
	if path == "" {
		return nil, errors.New("the simulator's ledger needs a file name")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("the directory of the simulator's ledger cannot be made: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("the simulator's ledger %s is in use by another simulator", path)
	}
	if err != nil {
		return nil, fmt.Errorf("the simulator's ledger %s cannot be opened: %w", path, err)
	}
	db.MaxBatchDelay = time.Millisecond
	var account string
	err = db.Update(func(tx *bbolt.Tx) (err error) {
		account, err = prepare(tx)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the simulator's ledger %s cannot be used: %w", path, err), db.Close())
	}
	return &ledger{
		db: db, clock: cfg.Clock, random: rand.New(source), account: account,
		lifetime: cfg.AuthorizationLifetime, notify: cfg.Webhook.URL != "",
	}, nil
}

func prepare(tx *bbolt.Tx) (account string, err error) {
	for _, name := range [][]byte{metaBucket, entryBucket, idBucket, keyBucket, refBucket, parentBucket, struckBucket, noticeBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return "", err
		}
	}
	meta := tx.Bucket(metaBucket)
	switch format := meta.Get([]byte("format")); {
	case format == nil:
		err = meta.Put([]byte("format"), []byte(ledgerFormat))
	case string(format) != ledgerFormat:
		err = fmt.Errorf("its format is %q and not %q", format, ledgerFormat)
	}
	if err != nil {
		return "", err
	}
	// Not from the ledger's source of randomness: that may be seeded alike for two of them.
	if account = string(meta.Get([]byte("account"))); account == "" {
		account = "led_" + strings.ToLower(cryptorand.Text())
		err = meta.Put([]byte("account"), []byte(account))
	}
	return account, err
}

// verdict is what became of a submitted request.
type verdict struct {
	operation operation // when applied, now or before
	replayed  bool      // applied before, under this key
	conflict  bool      // the key has another request; nothing was done
	strike    strike    // nothing was done but to count it
}

// submit applies r under key at most once, whatever is submitted how often. With
// byMethod the payment method's strikes befall the first requests of the key.
func (l *ledger) submit(key string, r request, byMethod bool) (verdict, error) {
	var v verdict
	err := l.db.Batch(func(tx *bbolt.Tx) (err error) {
		v, err = l.decide(tx, key, r, byMethod)
		return err
	})
	if err != nil {
		return verdict{}, fmt.Errorf("write the ledger: %w", err)
	}
	return v, nil
}

func (l *ledger) decide(tx *bbolt.Tx, key string, r request, byMethod bool) (verdict, error) {
	if sequence := tx.Bucket(keyBucket).Get([]byte(key)); sequence != nil {
		e, err := readEntry(tx, sequence)
		if err != nil || e.Request != r {
			return verdict{conflict: err == nil}, err
		}
		return verdict{operation: e.Operation, replayed: true}, nil
	}
	on, err := relatedTo(tx, r)
	if err != nil {
		return verdict{}, err
	}
	var v verdict
	if byMethod {
		if v.strike, err = nextStrike(tx, key, on.method); err != nil {
			return verdict{}, err
		}
	}
	if v.strike.kind == "" {
		v.operation = newOperation(l.newID(tx), key, l.clock.Now(), l.lifetime, r, on)
		if err = l.appendEntry(tx, key, entry{v.operation, r}); err == nil && v.operation.Status == succeeded {
			err = changeParent(tx, on.parent, v.operation)
		}
	}
	return v, err
}

// changeParent rewrites what act has changed, in the transaction of act.
func changeParent(tx *bbolt.Tx, parent entry, act operation) error {
	changed := parent.Operation.after(act)
	if changed == parent.Operation {
		return nil
	}
	value, err := json.Marshal(entry{changed, parent.Request})
	if err != nil {
		return fmt.Errorf("encode an operation: %w", err)
	}
	return tx.Bucket(entryBucket).Put(tx.Bucket(idBucket).Get([]byte(changed.ID)), value)
}

// nextStrike counts the strikes of a key on disk, so that a restart does not
// begin them anew.
func nextStrike(tx *bbolt.Tx, key, method string) (strike, error) {
	strikes, struck := methodStrikes[method], 0
	if count := tx.Bucket(struckBucket).Get([]byte(key)); count != nil {
		struck = int(count[0])
	}
	if struck >= len(strikes) {
		return strike{}, nil
	}
	return strikes[struck], tx.Bucket(struckBucket).Put([]byte(key), []byte{byte(struck + 1)})
}

// relatedTo reads what r acts on. The payment method is that of the
// authorization at the root.
func relatedTo(tx *bbolt.Tx, r request) (on related, err error) {
	if r.Type == authorization {
		return related{method: r.PaymentMethod}, nil
	}
	if on.parent, err = entryByID(tx, r.Parent); err != nil || on.parent.Operation.ID == "" {
		return on, err
	}
	root := on.parent
	for root.Request.Parent != "" && root.Operation.Status == succeeded {
		if root, err = entryByID(tx, root.Request.Parent); err != nil {
			return on, err
		}
	}
	on.method = root.Request.PaymentMethod
	err = eachUnder(tx.Bucket(parentBucket), r.Parent, nil, func(sequence []byte) (bool, error) {
		e, err := readEntry(tx, sequence)
		if err == nil && e.Operation.Status == succeeded {
			on.children = append(on.children, e.Operation)
		}
		return true, err
	})
	return on, err
}

func (l *ledger) appendEntry(tx *bbolt.Tx, key string, e entry) error {
	n, err := tx.Bucket(entryBucket).NextSequence()
	if err != nil {
		return err
	}
	value, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode an operation: %w", err)
	}
	sequence := binary.BigEndian.AppendUint64(nil, n)
	o := e.Operation
	put := []error{
		tx.Bucket(entryBucket).Put(sequence, value),
		tx.Bucket(idBucket).Put([]byte(o.ID), sequence),
		tx.Bucket(keyBucket).Put([]byte(key), sequence),
		tx.Bucket(refBucket).Put(under(o.Reference, sequence), nil),
		tx.Bucket(struckBucket).Delete([]byte(key)),
	}
	if o.Parent != "" {
		put = append(put, tx.Bucket(parentBucket).Put(under(o.Parent, sequence), nil))
	}
	if l.notify {
		put = append(put, putNotice(tx, sequence, notice{}))
	}
	return errors.Join(put...)
}

// newID is unique in this ledger even if the source of randomness was seeded
// alike before a restart.
func (l *ledger) newID(tx *bbolt.Tx) string {
	for {
		id := fmt.Sprintf("op_%016x%016x", l.random.Uint64(), l.random.Uint64())
		if tx.Bucket(idBucket).Get([]byte(id)) == nil {
			return id
		}
	}
}

func (l *ledger) close() error {
	if err := l.db.Close(); err != nil {
		return fmt.Errorf("close the simulator's ledger: %w", err)
	}
	return nil
}
