package api

import (
	"context"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"payments/internal/order"
	"payments/internal/payment"
)

const (
	maxStockPage  = 1000
	maxStockItems = 400 // of one request: as many as fit into its body, however long their names are
)

type stockItem struct {
	Merchant *string `json:"merchant"`
	SKU      *string `json:"sku"`
	OnHand   *int64  `json:"on_hand"`
}

type stockRequest struct {
	stockItem
	Data *[]stockItem `json:"data"`
}

func (s *server) listStock(ctx context.Context, c *call) error {
	merchantID, all := c.scope.Merchant()
	asked, err := c.askedMerchant()
	if err != nil {
		return err
	}
	if asked != "" {
		if !all && asked != merchantID {
			return payment.Errorf(payment.CodeForbidden, "A merchant reads its own stock only.")
		}
		merchantID = asked
	}
	if c.wantsCSV() {
		return s.exportStock(c, merchantID)
	}
	limit, err := c.limit(maxStockPage, maxStockPage)
	if err != nil {
		return err
	}
	cursor, err := s.after(c)
	if err != nil {
		return err
	}
	var after order.StockLevel
	if cursor != nil {
		if len(cursor) != 2 {
			return cursorInvalid()
		}
		after.MerchantID, after.SKU = cursor[0], cursor[1]
	}
	levels, err := s.Orders.Stock(ctx, merchantID, after, limit+1)
	if err != nil {
		return err
	}
	l := stockList(levels[:min(limit, len(levels))])
	if l.HasMore = len(levels) > limit; l.HasMore {
		last := l.Data[limit-1]
		l.NextCursor = s.behind(c, last.Merchant, last.SKU)
	}
	return s.ok(ctx, c, l)
}

func (s *server) exportStock(c *call, merchantID string) error {
	var after order.StockLevel
	columns := []string{"merchant", "sku", "on_hand", "reserved", "sold"}
	return s.export(c, "stock", columns, func(ctx context.Context) (rows [][]string, more bool, err error) {
		levels, err := s.Orders.Stock(ctx, merchantID, after, exportPage)
		for _, v := range levels {
			rows = append(rows, []string{
				v.MerchantID, v.SKU, strconv.FormatInt(v.OnHand, 10), strconv.FormatInt(v.Reserved, 10), strconv.FormatInt(v.Sold, 10),
			})
			after = v
		}
		return rows, len(levels) == exportPage, err
	})
}

func (s *server) setStock(ctx context.Context, c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	items, at, err := decodeStock(body)
	if err != nil {
		return err
	}
	if len(items) < 1 || len(items) > maxStockItems {
		return invalid(at, "out_of_range", "must have 1 to "+strconv.Itoa(maxStockItems)+" items")
	}
	levels, err := newStock(items, func(i int) string {
		if at == single {
			return ""
		}
		return at + "/" + strconv.Itoa(i)
	})
	if err != nil {
		return err
	}
	set, err := s.Orders.SetStock(ctx, levels)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, stockList(set))
}

// single stands in the place of the list's pointer when the body is one item.
const single = "-"

// decodeStock takes one item, an array of them, or {"data": […]}; at is the
// pointer of the list.
func decodeStock(body []byte) (items []stockItem, at string, err error) {
	if jsontext.Value(body).Kind() == '[' {
		err = decode(body, &items)
		return items, "", err
	}
	var q stockRequest
	if err := decode(body, &q); err != nil {
		return nil, "", err
	}
	if q.Data == nil {
		return []stockItem{q.stockItem}, single, nil
	}
	if q.stockItem != (stockItem{}) {
		return nil, "", invalid("/data", "member_unknown", "must not stand beside the members of an item")
	}
	return *q.Data, "/data", nil
}

func newStock(items []stockItem, pointer func(i int) string) ([]payment.Stock, error) {
	var f fields
	levels := make([]payment.Stock, 0, len(items))
	seen := make(map[string]bool, len(items))
	for i, item := range items {
		at := pointer(i)
		var own fields
		merchantID, sku := take(&own, item.Merchant, at+"/merchant"), take(&own, item.SKU, at+"/sku")
		level, err := payment.NewStock(at, merchantID, sku, take(&own, item.OnHand, at+"/on_hand"))
		if err := own.merge(err); err != nil {
			return nil, err
		}
		if id := level.MerchantID() + " " + level.SKU(); len(own) == 0 && seen[id] {
			own = append(own, payment.FieldError{Pointer: at, Code: "item_duplicate", Message: "must be the only item of this merchant and sku"})
		} else {
			seen[id] = true
		}
		f, levels = append(f, own...), append(levels, level)
	}
	return levels, f.err()
}

func stockList(levels []order.StockLevel) list[stockResource] {
	items := make([]stockResource, len(levels))
	for i, l := range levels {
		items[i] = stockResource{l.MerchantID, l.SKU, l.OnHand, l.Reserved, l.Sold}
	}
	return newList(items)
}
