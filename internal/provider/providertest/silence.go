package providertest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"payments/internal/provider"
)

// LeavesASwitchOfProtocols executes op at a gateway on the way that says that the
// connection is another protocol's from here on, and then nothing. Were that read, no
// deadline would end the call, nor the lease that it is made under.
func LeavesASwitchOfProtocols(t *testing.T, at func(url string) provider.Provider, op provider.Operation) {
	t.Helper()
	left := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: silence\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Error(err)
		}
		_, err = conn.Read(make([]byte, 1))
		left <- err
	}))
	defer srv.Close()
	if r := at(srv.URL).Execute(t.Context(), op); r.Outcome != provider.Unknown || r.Code != "" || !r.InFlight || r.Err == nil || r.OperationID != "" {
		t.Errorf("%+v", r)
	}
	if err := <-left; !errors.Is(err, io.EOF) {
		t.Errorf("the call did not leave the connection: %v", err)
	}
}
