package provider_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"payments/internal/provider"
)

const notified = `{"id":"evt_1","type":"operation.succeeded","created":"2026-11-24T12:00:00.000000Z","data":` + goodAnswer + `}`

var signedAt = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// v1 is the signature itself, made here by the letter of the scheme.
func v1(secret string, at time.Time, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return hex.EncodeToString(mac.Sum(nil))
}

func signature(secret string, at time.Time, body string) string {
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), v1(secret, at, body))
}

func reader(t *testing.T, now time.Time, secrets ...string) *provider.Webhooks {
	t.Helper()
	w, err := provider.SimulatorWebhooks(secrets, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestANotificationIsReadOnceItsSignatureIsRight(t *testing.T) {
	good, other := signature("whsec_a", signedAt, notified), v1("whsec_z", signedAt, notified)
	many := fmt.Sprintf("t=%d", signedAt.Unix()) + strings.Repeat(",v1="+other, 16) + ",v1=" + v1("whsec_a", signedAt, notified)
	for name, tc := range map[string]struct {
		headers []string
		body    string
		at      time.Duration // of the check, after the signing
		want    error
	}{
		"right":                       {headers: []string{good}},
		"at the end of tolerance":     {headers: []string{good}, at: 5 * time.Minute},
		"signed by a clock ahead":     {headers: []string{good}, at: -5 * time.Minute},
		"second of two signatures":    {headers: []string{fmt.Sprintf("t=%d,v1=%s,v1=%s", signedAt.Unix(), other, v1("whsec_a", signedAt, notified))}},
		"an older scheme beside it":   {headers: []string{good + ",v0=" + other}},
		"spaces":                      {headers: []string{strings.ReplaceAll(good, ",", ", ")}},
		"too old":                     {headers: []string{good}, at: 5*time.Minute + time.Second, want: provider.ErrSignatureTime},
		"of the future":               {headers: []string{good}, at: -5*time.Minute - time.Second, want: provider.ErrSignatureTime},
		"too old by another":          {headers: []string{signature("whsec_z", signedAt, notified)}, at: time.Hour, want: provider.ErrSignature},
		"another secret":              {headers: []string{signature("whsec_z", signedAt, notified)}, want: provider.ErrSignature},
		"another body":                {headers: []string{good}, body: notified + " ", want: provider.ErrSignature},
		"another time":                {headers: []string{fmt.Sprintf("t=%d,v1=%s", signedAt.Unix()+1, v1("whsec_a", signedAt, notified))}, want: provider.ErrSignature},
		"no header":                   {want: provider.ErrSignature},
		"two headers":                 {headers: []string{good, good}, want: provider.ErrSignature},
		"two times":                   {headers: []string{good + fmt.Sprintf(",t=%d", signedAt.Unix())}, want: provider.ErrSignature},
		"no time":                     {headers: []string{"v1=" + v1("whsec_a", signedAt, notified)}, want: provider.ErrSignature},
		"older scheme alone":          {headers: []string{strings.Replace(good, "v1", "v0", 1)}, want: provider.ErrSignature},
		"short":                       {headers: []string{good[:len(good)-2]}, want: provider.ErrSignature},
		"not hex":                     {headers: []string{good[:len(good)-1] + "x"}, want: provider.ErrSignature},
		"empty":                       {headers: []string{""}, want: provider.ErrSignature},
		"too many signatures":         {headers: []string{many}, want: provider.ErrSignature},
		"a header without end":        {headers: []string{good + ",x=" + strings.Repeat("y", 2048)}, want: provider.ErrSignature},
		"a body without end":          {headers: []string{good}, body: strings.Repeat("x", 256<<10+1), want: provider.ErrNotification},
		"signed, but not JSON":        {headers: []string{signature("whsec_a", signedAt, "x")}, body: "x", want: provider.ErrNotification},
		"signed, but without an id":   {headers: []string{signature("whsec_a", signedAt, `{}`)}, body: `{}`, want: provider.ErrNotification},
		"signed time is not a number": {headers: []string{"t=x,v1=" + hexHMAC("whsec_a", "x."+notified)}, want: provider.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.body == "" {
				tc.body = notified
			}
			n, err := reader(t, signedAt.Add(tc.at), "whsec_b", "whsec_a").Read(http.Header{"Provider-Signature": tc.headers}, []byte(tc.body))
			if !errors.Is(err, tc.want) || err != nil && strings.Contains(err.Error(), "whsec") {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			want := provider.Notification{}
			if tc.want == nil {
				want = provider.Notification{
					Provider: "simulator", ID: "evt_1", Type: "operation.succeeded", Reference: "pay_1", Key: "k",
					Operation: provider.Authorization, OperationID: "op_1",
				}
			}
			if n != want {
				t.Errorf("got %+v, want %+v", n, want)
			}
		})
	}
}

func hexHMAC(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestSecretsRotate(t *testing.T) {
	h := func(secret string) http.Header {
		return http.Header{"Provider-Signature": {signature(secret, signedAt, notified)}}
	}
	for _, tc := range []struct {
		live []string
		by   string
		want error
	}{
		{[]string{"whsec_old"}, "whsec_old", nil},
		{[]string{"whsec_new", "whsec_old"}, "whsec_old", nil},
		{[]string{"whsec_new", "whsec_old"}, "whsec_new", nil},
		{[]string{"whsec_new"}, "whsec_old", provider.ErrSignature},
	} {
		if _, err := reader(t, signedAt, tc.live...).Read(h(tc.by), []byte(notified)); !errors.Is(err, tc.want) {
			t.Errorf("live %v, signed by %s: %v, want %v", tc.live, tc.by, err, tc.want)
		}
	}
	for _, secrets := range [][]string{nil, {""}, {"whsec_a", ""}} {
		if _, err := provider.SimulatorWebhooks(secrets, time.Now); err == nil {
			t.Errorf("webhooks with the secrets %q are made", secrets)
		}
	}
}

func TestANotificationOfADeclineSaysSo(t *testing.T) {
	body := strings.Replace(notified, `"succeeded"`, `"declined","code":"card_declined"`, 1)
	n, err := reader(t, signedAt, "whsec_a").Read(http.Header{"Provider-Signature": {signature("whsec_a", signedAt, body)}}, []byte(body))
	if err != nil || !n.Declined {
		t.Errorf("%+v, %v", n, err)
	}
}
