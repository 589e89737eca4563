package buildkit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"time"
)

// handshakeWait is how long a daemon may take to refuse a certificate.
const handshakeWait = 10 * time.Second

// handshake says what a daemon has against our certificate, or we against its. With TLS 1.3 a client learns that it is
// refused after it began to speak, and gRPC reports the broken connection instead. nil says nothing about the rest.
func (n *Node) handshake(ctx context.Context) error {
	e := n.endpoint
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "tcp" || e.CACert == "" && e.Cert == "" && e.Server == "" {
		return nil //nolint:nilerr // it is no TLS
	}
	cfg := &tls.Config{ServerName: e.Server, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	if e.CACert != "" {
		pem, err := os.ReadFile(e.CACert)
		if err != nil {
			return err
		}
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM(pem)
	}
	if e.Cert != "" {
		pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
		if err != nil {
			return err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handshakeWait)
	defer cancel()
	d := tls.Dialer{Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err == nil {
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(handshakeWait))
		_, err = conn.Read(make([]byte, 1)) // the settings of HTTP/2, or an alert
	}
	var alert tls.AlertError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	if errors.As(err, &alert) || errors.As(err, &cert) || errors.As(err, &op) && op.Op == "remote error" {
		return err
	}
	return nil
}
