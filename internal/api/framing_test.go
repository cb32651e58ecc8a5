package api

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"payments/internal/payment"
)

// unsized hides the length of a body, as a client that streams does: HTTP/1.1 sends chunks, and
// HTTP/2 ends the stream by a frame of its own.
type unsized struct{ io.Reader }

// over sends a request without a content type, whose body has no length.
func (w *world) over(server *httptest.Server, method, path, key, body string, headers ...string) answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, server.URL+path, unsized{strings.NewReader(body)})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// An empty body is an empty body, however the request says so.
func TestAnEmptyBodyMayBeFramedInAnyWay(t *testing.T) {
	w := newWorld(t)
	second := httptest.NewUnstartedServer(nil)
	second.Config = NewServer(w.server.Config.Handler, w.api.Log)
	second.EnableHTTP2 = true
	second.StartTLS()
	t.Cleanup(second.Close)
	endpoint := w.do("POST", "/v1/webhook_endpoints", w.merchant, `{"url": "https://example.com/", "events": ["*"]}`, key("k")...)
	enable := "/v1/webhook_endpoints/" + endpoint.at(t, "id").(string) + "/enable"
	for n, version := range []struct {
		about string
		send  func(path, key string) answer
	}{
		{"HTTP/1.1, no length", func(path, key string) answer {
			return w.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nConnection: close\r\n\r\n")
		}},
		{"HTTP/1.1, a length of 0", func(path, key string) answer {
			return w.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}},
		{"HTTP/1.1, chunks", func(path, key string) answer {
			return w.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n")
		}},
		{"HTTP/1.1, chunks of another type", func(path, key string) answer {
			return w.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key +
				"\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n")
		}},
		{"HTTP/2", func(path, key string) answer { return w.over(second, "POST", path, key, "") }},
	} {
		for _, test := range []struct {
			path, key string
			status    int
		}{
			{"/v1/payments/" + w.placed(fmt.Sprintf("A-%d", n), "") + "/cancel", w.merchant, 202},
			{enable, w.merchant, 200},
			{"/v1/ops/parked/replay", w.operator, 200},
			{"/v1/ops/reports/refresh", w.operator, 202},
		} {
			if a := version.send(test.path, test.key); a.status != test.status {
				t.Errorf("%s: %s: %d %s", version.about, test.path, a.status, a.body)
			}
		}
		refused := version.send("/v1/ops/keys/key_"+freshID+"/pin", w.operator) // which needs a body
		if !strings.Contains(refused.body, `"missing"`) {
			t.Errorf("%s: a body that is needed: %d %s", version.about, refused.status, refused.body)
		}
	}
	// What is not empty still has to say what it is.
	for _, server := range []*httptest.Server{w.server, second} {
		a := w.over(server, "POST", enable, w.merchant, "{}")
		w.refused("no content type", a, 415, codeContentType)
		a = w.over(server, "POST", "/v1/payments", w.merchant, "", key("k-none")...)
		if errs := w.refused("a payment of nothing", a, 400, codeJSONInvalid); len(errs) != 1 || !strings.Contains(a.body, "is empty") {
			t.Errorf("a payment of nothing: %s", a.body)
		}
		if a := w.over(server, "POST", enable, w.merchant, "{}", "Content-Type", "application/json"); a.status != 200 {
			t.Errorf("an object without a length: %d %s", a.status, a.body)
		}
		a = w.over(server, "POST", enable, w.merchant, strings.Repeat(" ", maxBody+1), "Content-Type", "application/json")
		w.refused("too much without a length", a, 413, codeBodyTooLarge)
	}
}

func TestAnEmptyHeaderIsNone(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.project()
	head := func(path string, header string) int {
		t.Helper()
		c := w.dial()
		if _, err := io.WriteString(c, "HEAD "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+w.merchant+"\r\n"+header+":\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodHead})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, test := range []struct{ path, header string }{
		{"/v1/payments/" + id + "/events", "Last-Event-ID"}, {"/v1/events", "Last-Event-ID"},
		{"/v1/payments", "If-None-Match"}, {"/v1/payments", "Prefer"}, {"/v1/payments", "Accept"},
	} {
		if status := head(test.path, test.header); status != http.StatusOK {
			t.Errorf("%s with an empty %s: %d", test.path, test.header, status)
		}
	}
}

func TestANotificationMayHave256KiB(t *testing.T) {
	w := newWorld(t)
	notify := func(size int) answer {
		t.Helper()
		body := `{"id":"evt_1","type":"operation.succeeded","data":{"reference":"pay_1"}}`
		body += strings.Repeat(" ", size-len(body))
		return w.do("POST", "/v1/provider/webhooks/simulator", "", body, "Content-Type", "application/json", "Provider-Signature", signed(providerSecret, body))
	}
	for _, size := range []int{maxBody, maxBody + 1, maxNotification} {
		if a := notify(size); a.status != 200 {
			t.Errorf("%d bytes: %d %s", size, a.status, a.body)
		}
	}
	if a := notify(maxNotification + 1); !strings.Contains(a.body, "262144") {
		t.Errorf("one byte more: %d %s", a.status, a.body)
	} else {
		w.refused("one byte more", a, 413, codeBodyTooLarge)
	}
}

// An SKU is any name: it goes through every place that takes or shows one.
func TestAnSKUIsOpaque(t *testing.T) {
	w := newWorld(t)
	skus := []string{"AB 12", "LAT/78", "a,b", "a&b=c?d#e", `"x"`, "50%", "../..", "日本-1", "-", "É"}
	for n, sku := range skus {
		item := fmt.Sprintf(`{"merchant": %q, "sku": %s, "on_hand": 7}`, w.merchantID, quoted(sku))
		if a := w.do("PUT", "/v1/stock", w.operator, item); a.status != 200 || a.at(t, "data.0.sku") != sku {
			t.Errorf("stock of %s: %d %s", sku, a.status, a.body)
		}
		body := strings.NewReplacer(`"TSHIRT-M"`, quoted(sku), "A-1001", fmt.Sprintf("A-%d", n)).Replace(good)
		placed := w.post(w.merchant, body, key(fmt.Sprintf("k-%x", sku))...)
		if placed.status != 202 || placed.at(t, "order.lines.0.sku") != sku {
			t.Errorf("a payment of %s: %d %s", sku, placed.status, placed.body)
			continue
		}
		w.project()
		if a := w.do("GET", placed.header.Get("Location"), w.merchant, ""); a.status != 200 || a.at(t, "order.lines.0.sku") != sku {
			t.Errorf("read %s: %d %s", sku, a.status, a.body)
		}
	}
	// Page by page, each once.
	var found []string
	for cursor := ""; ; {
		a := w.do("GET", "/v1/stock?limit=3"+cursor, w.merchant, "")
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for i := range a.at(t, "data").([]any) {
			found = append(found, a.at(t, fmt.Sprintf("data.%d.sku", i)).(string))
		}
		if a.at(t, "next_cursor") == nil {
			break
		}
		cursor = "&cursor=" + a.at(t, "next_cursor").(string)
	}
	if len(found) != len(skus) {
		t.Errorf("the pages have %q", found)
	}
}

// Mobile operators have given out addresses that RFC 5322 does not allow. They stop no payment.
func TestAddressesThatPeopleHave(t *testing.T) {
	w := newWorld(t)
	for n, email := range []string{"a..b@example.jp", "a.@example.jp", ".a@example.jp", "a...@example.jp", "user+tag@example.com", "o'brien@example.ie", "ünï@exämple.de", "a@localhost"} {
		body := strings.NewReplacer("ada@example.com", email, "A-1001", fmt.Sprintf("A-%d", n)).Replace(good)
		if a := w.post(w.merchant, body, key(fmt.Sprintf("k-%d", n))...); a.status != 202 || a.at(t, "customer.email") != email {
			t.Errorf("%s: %d %s", email, a.status, a.body)
		}
	}
	for _, email := range []string{"a@", "@b", "a b@example.com", "a@b@c", "a@example..com", "a@.example.com", "a@example.com.", "<a@b.c>", "a,b@c.d", "."} {
		a := w.post(w.merchant, strings.Replace(good, "ada@example.com", email, 1), key("k")...)
		if got := w.refused(email, a, 400, payment.CodeInvalid); len(got) != 1 || got[0] != "/customer/email email_invalid" {
			t.Errorf("%s: %v", email, got)
		}
	}
}

func quoted(s string) string {
	text := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
	return `"` + text + `"`
}
