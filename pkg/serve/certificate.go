package serve

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
)

// certificate is a certificate and its key in PEM files, read again when they
// have changed; a broken pair leaves the last good one.
type certificate struct {
	files watched
	log   *slog.Logger

	mu   sync.Mutex
	pair *tls.Certificate
}

func openCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: watched{names: []string{cert, key}}, log: log}
	c.files.changed()
	return c, c.load()
}

func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.files.names[0], c.files.names[1])
	if err != nil {
		return fmt.Errorf("%w: the certificate: %w", ErrInvalid, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pair = &pair
	return nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.files.changed() {
		if err := c.load(); err != nil {
			c.log.Error("the certificate stays as it was", "error", err)
		} else {
			c.log.Info("the certificate was read again")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pair, nil
}

// config is what a listener needs.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
}
