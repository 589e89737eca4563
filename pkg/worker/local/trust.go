package local

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// Where the authorities lie while a step runs: /dev is of the step alone, and never in a layer.
const (
	trustFile    = "/dev/manifestctl-ca.pem"
	trustAptConf = "/dev/manifestctl-apt.conf"
)

// trustVariables name a file of authorities to programs that do not look where the others do, or look there first.
var trustVariables = []string{
	"SSL_CERT_FILE",       // OpenSSL and what uses it, Go, Rust's native roots
	"CURL_CA_BUNDLE",      // curl
	"REQUESTS_CA_BUNDLE",  // Python's requests
	"PIP_CERT",            // pip
	"NODE_EXTRA_CA_CERTS", // node
	"GIT_SSL_CAINFO",      // git
	"CARGO_HTTP_CAINFO",   // cargo
	"AWS_CA_BUNDLE",       // AWS's programs
	"NIX_SSL_CERT_FILE",   // nix
	"DENO_CERT",           // deno
}

// bundles are where systems keep the authorities that they trust.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/pki/tls/certs/ca-bundle.crt",                  // older ones
	"/etc/ssl/cert.pem",                                 // Alpine, BSD
}

// maxBundle is the largest bundle that is read, in bytes; the usual ones have a quarter of a megabyte.
const maxBundle = 8 << 20

// trust makes programs of a step trust the caller's authorities, by a file and variables that only the process has: they
// are in no key, no config and no layer. The bundle of the image is not covered: packages that replace it while the step
// runs (ca-certificates) could not.
func (w *Worker) trust(ctx context.Context, step *sandbox.Step, base solve.Result) error {
	system, err := w.imageBundle(ctx, base)
	if err != nil {
		return err
	}
	all := append(bytes.TrimSpace(bytes.Clone(w.o.Authorities)), '\n')
	all = append(all, system...)
	step.Mounts = append(
		step.Mounts,
		sandbox.Mount{Kind: sandbox.MountData, Target: trustFile, Data: all, Mode: 0o644, ReadOnly: true, Silent: true},
		sandbox.Mount{Kind: sandbox.MountData, Target: trustAptConf, Data: []byte("Acquire::https::CAInfo \"" + trustFile + "\";\n"), Mode: 0o644, ReadOnly: true, Silent: true},
	)
	for _, name := range trustVariables {
		step.Env = withDefault(step.Env, name, trustFile)
	}
	step.Env = withDefault(step.Env, "APT_CONFIG", trustAptConf)
	return nil
}

// imageBundle is what the image trusts, or where it has nothing (its programs may get their own while the step runs, and look
// only at ours) what this machine does.
func (w *Worker) imageBundle(ctx context.Context, base solve.Result) (_ []byte, err error) {
	view, err := w.View(ctx, base.Layers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	for _, name := range bundles {
		n, err := view.Node(name, true)
		if err != nil {
			continue
		}
		f, err := view.Open(n.Path())
		if err != nil {
			return nil, fmt.Errorf("reading what the image trusts: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(f, maxBundle))
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("reading what the image trusts: %w", err)
		}
		return data, nil
	}
	for _, name := range bundles {
		if data, err := os.ReadFile(name); err == nil && len(data) <= maxBundle {
			return data, nil
		}
	}
	return nil, nil
}

// ReadAuthorities reads files of certificates, which must all hold some.
func ReadAuthorities(files []string) ([]byte, error) {
	var all []byte
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("authorities for steps: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("authorities for steps: %s holds no certificate in PEM", name)
		}
		all = append(append(all, bytes.TrimSpace(data)...), '\n')
	}
	return all, nil
}
