package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// ErrUntrusted is a certificate of a registry that cannot be verified.
var ErrUntrusted = errors.New("the certificate is not trusted")

// tlsHint says what is wrong with a TLS connection to host, and what to do; "" when it is something else.
func tlsHint(host string, err error) (hint string, untrusted bool) {
	var (
		record  tls.RecordHeaderError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		op      *net.OpError
	)
	ca := fmt.Sprintf("put the certificate of its authority into /etc/containers/certs.d/%s/ca.crt or give --ca-file FILE", host)
	any := fmt.Sprintf("--insecure=%s accepts any", host)
	switch {
	case errors.As(err, &record):
		return fmt.Sprintf("%s does not speak TLS: --plain-http=%s allows http", host, host), false
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if strings.Contains(invalid.Detail, "is before") {
			return fmt.Sprintf("the certificate is good from %s on: is the clock of this machine right?", day(invalid.Cert.NotBefore)), true
		}
		return fmt.Sprintf("the certificate was good until %s: the registry's operator renews it; %s", day(invalid.Cert.NotAfter), any), true
	case errors.As(err, &name) && name.Certificate != nil:
		for_ := strings.Join(certNames(name.Certificate), ", ")
		if for_ == "" {
			for_ = "no host"
		}
		return fmt.Sprintf("the certificate is for %s: use that name, or %s", printable(for_), any), true
	case errors.As(err, &unknown) && unknown.Cert != nil:
		if unknown.Cert.Subject.String() == unknown.Cert.Issuer.String() {
			return fmt.Sprintf("the certificate is signed by itself (%s): %s; %s", printable(unknown.Cert.Subject.String()), ca, any), true
		}
		return fmt.Sprintf("nobody here knows %s, who signed the certificate: %s; %s", printable(unknown.Cert.Issuer.String()), ca, any), true
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &name):
		return fmt.Sprintf("%s; %s", ca, any), true
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		// The alerts about certificates (RFC 8446, section 6); crypto/tls has no kinds for them.
		return fmt.Sprintf("%s wants a certificate of yours, or does not know the one it got: put NAME.cert and NAME.key into /etc/containers/certs.d/%s or give --cert-dir DIR", host, host), false
	}
	return "", false
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// certNames are the hosts that a certificate is for, the first ten.
func certNames(c *x509.Certificate) []string {
	var out []string
	out = append(out, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) > 10 {
		out = append(out[:10], "...")
	}
	return out
}
