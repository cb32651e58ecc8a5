package webhook

import (
	"net/netip"
	"strings"
	"testing"
)

func TestGuardPermitsPublicAddressesAlone(t *testing.T) {
	for _, c := range []struct {
		address        string
		public, onDemo bool
	}{
		{"93.184.215.14", true, true},
		{"2606:2800:21f:cb07:6820:80da:af6b:8b2c", true, true},
		{"10.0.0.1", false, true},
		{"172.16.0.1", false, true},
		{"172.32.0.1", true, true},
		{"192.168.1.1", false, true},
		{"127.0.0.1", false, true},
		{"127.255.255.254", false, true},
		{"::1", false, true},
		{"fd12:3456::1", false, true},
		{"0.0.0.0", false, false},
		{"0.1.2.3", false, false},
		{"::", false, false},
		{"100.64.0.1", false, false},
		{"100.127.255.255", false, false},
		{"169.254.169.254", false, false},
		{"169.254.170.2", false, false},
		{"192.0.0.192", false, false},
		{"168.63.129.16", false, false},
		{"198.18.0.1", false, false},
		{"203.0.113.1", false, false},
		{"224.0.0.1", false, false},
		{"239.255.255.255", false, false},
		{"240.0.0.1", false, false},
		{"255.255.255.255", false, false},
		{"fe80::1", false, false},
		{"fe80::1%eth0", false, false},
		{"2606:2800:21f::1%eth0", false, false},
		{"fec0::1", false, false},
		{"ff02::1", false, false},
		{"fd00:ec2::254", false, false},
		{"::ffff:127.0.0.1", false, false},
		{"::ffff:93.184.215.14", false, false},
		{"::7f00:1", false, false},
		{"64:ff9b::a9fe:a9fe", false, false},
		{"64:ff9b:1::1", false, false},
		{"2002:7f00:1::1", false, false},
		{"2001::1", false, false},
		{"2001:db8::1", false, false},
		{"3fff::1", false, false},
		{"100::1", false, false},
	} {
		a := netip.MustParseAddr(c.address)
		if got := (Guard{}).permits(a); got != c.public {
			t.Errorf("%s: permitted %v", c.address, got)
		}
		if got := (Guard{AllowPrivate: true}).permits(a); got != c.onDemo {
			t.Errorf("%s with private ones allowed: permitted %v", c.address, got)
		}
	}
	if (Guard{AllowPrivate: true}).permits(netip.Addr{}) {
		t.Error("no address is permitted")
	}
	for _, address := range []string{"93.184.215.14:22", "93.184.215.14", "nonsense", "/run/socket"} {
		if err := (Guard{AllowPrivate: true}).control("tcp", address, nil); err == nil {
			t.Errorf("%s is dialed", address)
		}
	}
}

func TestURLsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"https://example.com/hooks?a=b":                    "",
		"https://example.com":                              "",
		"https://example.com.:8443/":                       "",
		"https://93.184.215.14/":                           "",
		"https://[2606:2800:21f::1]/":                      "",
		"http://example.com/":                              "url_scheme",
		"ftp://example.com/":                               "url_scheme",
		"HTTPS://example.com/":                             "url_invalid",
		"https:example.com":                                "url_invalid",
		"//example.com/":                                   "url_scheme",
		"":                                                 "url_invalid",
		"https://":                                         "url_invalid",
		"https:///path":                                    "url_invalid",
		"https://exa mple.com/":                            "url_invalid",
		"https://bücher.example/":                          "url_invalid",
		"https://example.com/\x00":                         "url_invalid",
		"https://example.com\\@127.0.0.1/":                 "url_invalid",
		"https://example.com/#part":                        "url_invalid",
		"https://user:s3cret@example.com/":                 "url_credentials",
		"https://@example.com/":                            "url_credentials",
		"https://example.com:22/":                          "url_port",
		"https://example.com:0/":                           "url_port",
		"https://example.com:/":                            "url_port",
		"https://example.com:99999/":                       "url_port",
		"https://127.0.0.1/":                               "url_address",
		"https://127.0.0.1./":                              "url_address",
		"https://127.1/":                                   "url_address",
		"https://2130706433/":                              "url_address",
		"https://0x7f000001/":                              "url_address",
		"https://0177.0.0.1/":                              "url_address",
		"https://10.1.2.3:8443/":                           "url_address",
		"https://169.254.169.254/latest":                   "url_address",
		"https://[::1]/":                                   "url_address",
		"https://[::ffff:10.0.0.1]/":                       "url_address",
		"https://[fe80::1%25eth0]/":                        "url_address",
		"https://[64:ff9b::a00:1]/":                        "url_address",
		"https://localhost/":                               "url_address",
		"https://LOCALHOST:8443/":                          "url_address",
		"https://a.localhost/":                             "url_address",
		"https://metadata/":                                "url_address",
		"https://metadata.google.internal/":                "url_address",
		"https://exam_ple..com/":                           "url_invalid",
		"https://" + strings.Repeat("a", 64) + ".com/":     "url_invalid",
		"https://example.com/" + strings.Repeat("a", 2048): "url_invalid",
	} {
		code, message := (Guard{}).checkURL(text)
		if code != want || (code == "") != (message == "") {
			t.Errorf("%q: %q %q, want %q", text, code, message, want)
		}
	}
	for text, want := range map[string]string{
		"http://127.0.0.1:9999/hook": "", "http://localhost:9999/": "", "http://receiver:8080/": "", "http://10.0.0.1/": "", "http://[::1]:8080/": "",
		"http://169.254.169.254/": "url_address", "http://0.0.0.0:8080/": "url_address", "gopher://127.0.0.1/": "url_scheme",
	} {
		if code, _ := (Guard{AllowPrivate: true}).checkURL(text); code != want {
			t.Errorf("%q where private ones are allowed: %q, want %q", text, code, want)
		}
	}
}
