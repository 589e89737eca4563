package main

import (
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// fakeRegistry is `fakeregistry VAR [tls=CAFILE] [basic=USER:PASSWORD] [bearer=USER:PASSWORD]`: it sets VAR to the address of
// a registry that wants these credentials, and with tls= writes the certificate of its authority.
func fakeRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fakeregistry VAR [tls=CAFILE] [basic=USER:PASSWORD] [bearer=USER:PASSWORD]")
	}
	var o testregistry.Options
	var guard func(r *testregistry.Registry)
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		user, pass, _ := strings.Cut(value, ":")
		switch key {
		case "tls":
			ca, err := testregistry.NewAuthority("the test's authority")
			ts.Check(err)
			ts.Check(os.MkdirAll(ts.MkAbs(strings.TrimSuffix(value, "/ca.crt")), 0o755))
			ts.Check(os.WriteFile(ts.MkAbs(value), ca.PEM, 0o644))
			o.TLS, err = ca.ServerConfig("127.0.0.1", "localhost")
			ts.Check(err)
		case "basic":
			guard = func(r *testregistry.Registry) { r.Basic(user, pass) }
		case "bearer":
			guard = func(r *testregistry.Registry) { r.Bearer(user, pass) }
		default:
			ts.Fatalf("unknown argument %q", arg)
		}
	}
	r := testregistry.Unstarted(o)
	srv := httptest.NewUnstartedServer(r)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.Host = srv.Listener.Addr().String() // before anybody can ask
	if guard != nil {
		guard(r)
	}
	if o.TLS != nil {
		srv.TLS = o.TLS
		srv.StartTLS()
	} else {
		srv.Start()
	}
	ts.Defer(func() { r.Stop(); srv.Close() })
	_, port, err := net.SplitHostPort(r.Host)
	ts.Check(err)
	ts.Setenv(args[0], r.Host)
	ts.Setenv(args[0]+"_PORT", port)
}
