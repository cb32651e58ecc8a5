package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/urfave/cli/v3"

	"payments/internal/api"
	"payments/internal/order"
)

const (
	remoteTimeout = 30 * time.Second
	remoteMost    = 64 << 20 // bytes of an answer
	remotePage    = 100
)

// reads is shows for what operators also read over HTTP, without the database's password.
func reads(flags ...cli.Flag) []cli.Flag {
	return shows(append(flags, &cli.BoolFlag{
		Name: "api", Usage: "ask the API at PAYMENTS_URL by the key in PAYMENTS_OPERATOR_KEY; so it is without PAYMENTS_DATABASE_URL",
	})...)
}

// overAPI decides where a read is made.
func (e environment) overAPI(c *cli.Command) bool {
	return c.Bool("api") || e.value("PAYMENTS_DATABASE_URL") == "" && e.value("PAYMENTS_URL") != ""
}

// remote is the API in the hands of an operator.
type remote struct {
	base, key string
	client    *http.Client
}

func (e environment) remote() (remote, error) {
	base, err := e.required("PAYMENTS_URL")
	if err != nil {
		return remote{}, err
	}
	key, err := e.required(operatorKey)
	if err != nil {
		return remote{}, err
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		return remote{}, usagef("PAYMENTS_URL must be an http or https URL without query and fragment")
	}
	return remote{strings.TrimRight(base, "/"), strings.TrimSpace(key), &http.Client{
		Timeout:       remoteTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key goes nowhere else
	}}, nil
}

// problem is what the API says of a request that it refuses.
type problem struct {
	Detail    string `json:"detail"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Pointer string `json:"pointer"`
		Message string `json:"message"`
	} `json:"errors"`
}

// get reads one resource.
func (r remote) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, http.NoBody)
	if err != nil {
		return usagef("PAYMENTS_URL: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.key)
	req.Header.Set("Payments-Version", api.NewestVersion()) // whose members are read here
	resp, err := r.client.Do(req)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return err
		}
		return unreachableError{fmt.Errorf("PAYMENTS_URL: %w", err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, remoteMost))
	if err != nil {
		return unreachableError{fmt.Errorf("PAYMENTS_URL: %w", err)}
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			return usagef("PAYMENTS_URL: the answer is not that of this version's API: %w", err)
		}
		return nil
	}
	return refusedRead(resp, body)
}

func refusedRead(resp *http.Response, body []byte) error {
	var p problem
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		p.Detail = "it answered " + resp.Status
	}
	words := []string{p.Detail}
	for _, e := range p.Errors {
		words = append(words, e.Pointer+" "+e.Message+".")
	}
	if p.RequestID != "" {
		words = append(words, "("+p.RequestID+")")
	}
	said := strings.Join(words, " ")
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return usagef("%s: %s", operatorKey, said)
	case code == http.StatusNotFound:
		return errors.New(said)
	case code == http.StatusTooManyRequests || code >= 500:
		return unreachableError{fmt.Errorf("PAYMENTS_URL: %s", said)}
	}
	return usagef("PAYMENTS_URL: %s", said)
}

// getAll pages through a list until it ends, or has most items.
func getAll[T any](ctx context.Context, r remote, path string, query url.Values, most int) (listed[T], error) {
	all := listOf[T](nil)
	for cursor := ""; ; {
		query.Set("limit", strconv.Itoa(min(remotePage, most-len(all.Data))))
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		var page listed[T]
		if err := r.get(ctx, path+"?"+query.Encode(), &page); err != nil {
			return all, err
		}
		all.Data = append(all.Data, page.Data...)
		if !page.HasMore || page.NextCursor == nil || len(all.Data) >= most {
			return all, nil
		}
		cursor = *page.NextCursor
	}
}

// remoteSagas reads sagas over HTTP.
type remoteSagas struct{ remote }

func (d remoteSagas) list(ctx context.Context, f order.SagaFilter, about order.About) (listed[api.Saga], error) {
	query := url.Values{}
	for name, value := range map[string]string{
		"state": string(f.State), "definition": f.Definition, "payment": about.Payment, "order": about.Order, "reference": about.Reference,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if f.OlderThan > 0 {
		seconds := int64((f.OlderThan + time.Second - 1) / time.Second)
		query.Set("older_than", strconv.FormatInt(seconds, 10)+"s")
		if seconds > 999_999 { // what one number may say
			query.Set("older_than", strconv.FormatInt((seconds+3599)/3600, 10)+"h")
		}
	}
	if f.Paused {
		query.Set("paused", "true")
	}
	return getAll[api.Saga](ctx, d.remote, "/v1/ops/sagas", query, f.Limit)
}

func (d remoteSagas) open(ctx context.Context, id string) (s api.Saga, err error) {
	err = d.get(ctx, "/v1/ops/sagas/"+url.PathEscape(id), &s)
	return s, err
}
