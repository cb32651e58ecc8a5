package api

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"payments/internal/payment"
)

// sent are the values of a header field. One empty value is as if the field were not there:
// some clients send a field whether they have a value for it or not.
func sent(r *http.Request, name string) []string {
	values := r.Header.Values(name)
	if len(values) == 1 && values[0] == "" {
		return nil
	}
	return values
}

// nothingAt is the refusal of a path that leads nowhere, by what is likely wrong with it.
func nothingAt(path string) error {
	const nothing = "There is nothing at this path"
	switch {
	case len(path) > 1 && strings.HasSuffix(path, "/"):
		return payment.Errorf(payment.CodeNotFound, nothing+": leave out the slash at its end.")
	case !strings.HasPrefix(path, "/v1/"):
		return payment.Errorf(payment.CodeNotFound, nothing+": those of the API begin with /v1/, and GET /docs shows them.")
	}
	return payment.Errorf(payment.CodeNotFound, nothing+"; GET /docs shows those of the API.")
}

// namingID adds to the refusal of an id that was not found what is wrong with its form. Of an id
// that has the right form, nothing tells whether it exists.
func namingID(rt route, c *call, err error) error {
	prefix := idPrefix(rt.pattern)
	if prefix == "" || !notFound(err) {
		return err
	}
	switch id := chi.URLParam(c.r, "id"); {
	case payment.ValidID(prefix, id):
		return err
	case strings.HasPrefix(id, prefix+"_"):
		return payment.Errorf(payment.CodeNotFound, "There is no such object: the id in the path is not a whole one, which has 26 characters after %s_.", prefix).Because(err)
	}
	return payment.Errorf(payment.CodeNotFound, "There is no such object: the id in the path has to begin with %s_.", prefix).Because(err)
}

// idPrefix is what {id} begins with in the pattern, or empty where it has no id of one kind.
func idPrefix(pattern string) string {
	for path, prefix := range map[string]string{
		"/v1/payments/{id}": payment.PrefixPayment, "/v1/webhook_endpoints/{id}": payment.PrefixEndpoint, "/v1/ops/sagas/{id}": payment.PrefixSaga,
		"/v1/ops/keys/{id}": payment.PrefixKey, "/v1/ops/provider_changes/{id}": payment.PrefixChange,
	} {
		if strings.HasPrefix(pattern, path) {
			return prefix
		}
	}
	return ""
}
