package registry

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Threat: these files decide which server is believed to be the registry. They are the machine's and the user's own, in the
// directories of docker and podman; a CA that is there for one registry counts for that registry, and for where it sends us.

// maxPEM is the largest file of certificates or keys that is read, in bytes.
const maxPEM = 4 << 20

// DefaultCertDirs are the directories that hold a directory HOST[:PORT] for each registry, with *.crt (authorities) and
// *.cert with *.key (of the client): those of docker and podman, the user's and the machine's (containers-certs.d(5)).
func DefaultCertDirs(getenv func(string) string) []string {
	if getenv == nil {
		getenv = os.Getenv //nolint:forbidigo // where the user's files are is named by the environment
	}
	var dirs []string
	config := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		dirs = append(dirs, filepath.Join(config, "containers", "certs.d"), filepath.Join(config, "docker", "certs.d"))
	}
	if runtime.GOOS != "windows" {
		dirs = append(dirs, "/etc/containers/certs.d", "/etc/docker/certs.d")
	}
	return dirs
}

// trust is whom a TLS connection believes beside the system's authorities, and who it says that it is. nil: nobody.
type trust struct {
	authorities []*x509.Certificate
	client      []tls.Certificate

	once sync.Once
	pool *x509.CertPool
	err  error
}

// roots are all authorities.
func (t *trust) roots() (*x509.CertPool, error) {
	t.once.Do(func() {
		if t.pool, t.err = x509.SystemCertPool(); t.err != nil {
			t.pool, t.err = x509.NewCertPool(), nil // a system without any
		}
		for _, c := range t.authorities {
			t.pool.AddCert(c)
		}
	})
	return t.pool, t.err
}

// trusts holds what was read, by registry, and what that came to with where a registry sends us.
type trusts struct {
	reading sync.Mutex
	own     map[string]*trust
	both    map[string]*trust
}

// trustFor is the trust of a request to u on behalf of h: h's own, and that of u's host. The client's certificate of h
// goes with it only to where h's credentials may go.
func (c *Client) trustFor(h *host, u *url.URL) (*trust, error) {
	c.trusts.reading.Lock()
	defer c.trusts.reading.Unlock()
	own, err := c.trustOf(h.name, h.endpoint)
	if err != nil || sameOrigin(u, h.origin()) {
		return own, err
	}
	key := h.name + " " + u.Host
	if t, ok := c.trusts.both[key]; ok {
		return t, nil
	}
	there, err := c.trustOf(u.Host)
	if err != nil {
		return nil, err
	}
	var both *trust
	switch {
	case own == nil:
		both = there
	case there == nil:
		both = &trust{authorities: own.authorities}
	default:
		both = &trust{authorities: slices.Concat(own.authorities, there.authorities), client: there.client}
	}
	if own != nil && len(own.client) > 0 && len(both.client) == 0 && sameSite(u.Hostname(), h.origin().Hostname()) {
		both = &trust{authorities: both.authorities, client: own.client}
	}
	if c.trusts.both == nil {
		c.trusts.both = map[string]*trust{}
	}
	c.trusts.both[key] = both
	return both, nil
}

// trustOf reads what stands for a registry, under any of its names. The caller holds c.trusts.reading.
func (c *Client) trustOf(names ...string) (*trust, error) {
	if t, ok := c.trusts.own[names[0]]; ok {
		return t, nil
	}
	t := &trust{}
	for _, file := range c.o.CAFiles {
		if err := t.addAuthorities(file, true); err != nil {
			return nil, err
		}
	}
	if c.o.CertDir != "" {
		if err := t.addDir(c.o.CertDir, true); err != nil {
			return nil, err
		}
	}
	if dir := c.o.HostCerts[names[0]]; dir != "" {
		if err := t.addDir(dir, true); err != nil {
			return nil, err
		}
	}
	for _, dir := range c.o.CertDirs {
		for _, name := range dirNames(names) {
			if err := t.addDir(filepath.Join(dir, name), false); err != nil {
				return nil, err
			}
		}
	}
	if len(t.authorities) == 0 && len(t.client) == 0 {
		t = nil
	}
	if c.trusts.own == nil {
		c.trusts.own = map[string]*trust{}
	}
	c.trusts.own[names[0]] = t
	return t, nil
}

// dirNames are the names of a registry's directory: with and without the port of https. No name leaves its directory: it
// comes out of a parsed reference or address, and holds no slash.
func dirNames(names []string) []string {
	var out []string
	for _, n := range names {
		bare, port := splitPort(n)
		all := []string{n}
		switch port {
		case "":
			all = append(all, n+":443")
		case "443":
			all = append(all, bare)
		}
		for _, a := range all {
			if a != "" && a[0] != '.' && !strings.ContainsAny(a, `/\`) && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// addDir reads a directory. One that is not there, or that is closed to us, adds nothing, unless it was named.
func (t *trust) addDir(dir string, named bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !named && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || isNotDir(dir)) {
			return nil
		}
		return fmt.Errorf("reading certificates: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		base := strings.TrimSuffix(path, filepath.Ext(path))
		switch filepath.Ext(path) {
		case ".crt":
			if err := t.addAuthorities(path, named); err != nil {
				return err
			}
		case ".cert":
			if err := t.addClient(path, base+".key"); err != nil {
				return err
			}
		case ".key":
			if _, err := os.Stat(base + ".cert"); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("reading certificates: %s has no %s beside it (the certificate of a client ends in .cert, that of an authority in .crt)", path, filepath.Base(base)+".cert")
			}
		}
	}
	return nil
}

func isNotDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func (t *trust) addAuthorities(path string, named bool) error {
	text, err := readPEM(path)
	if err != nil {
		if !named && errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return fmt.Errorf("reading certificates: %w", err)
	}
	found := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("reading certificates: %s: %w", path, err)
		}
		t.authorities = append(t.authorities, cert)
		found++
	}
	if found == 0 {
		return fmt.Errorf("reading certificates: %s holds none (in PEM: -----BEGIN CERTIFICATE-----)", path)
	}
	return nil
}

func (t *trust) addClient(cert, key string) error {
	certText, err := readPEM(cert)
	if err != nil {
		return fmt.Errorf("reading certificates: %w", err)
	}
	keyText, err := readPEM(key)
	if err != nil {
		return fmt.Errorf("reading certificates: %s has no key beside it: %w", cert, err)
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return fmt.Errorf("reading certificates: %s and its key: %w", cert, err)
	}
	t.client = append(t.client, pair)
	return nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // named by the user, or in the directories of docker and podman
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxPEM)
	}
	return text, err
}
