package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformanceProgram is the distribution specification's own test program, built once.
var conformanceProgram = sync.OnceValues(func() (string, error) {
	out := filepath.Join(shared.dir, "conformance")
	c := exec.Command("go", "build", "-C", "../../tools/conformance", "-o", out, "github.com/opencontainers/distribution-spec/conformance")
	text, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building the conformance program: %w\n%s", err, text)
	}
	return out, err
})

// TestConformance runs the distribution specification's own tests against serve, with everything switched on that
// the program knows. It passes only when the program has written a result of this run, and nothing in it failed, was
// skipped or was switched off, but what docs/serve.md names with its reason.
func TestConformance(t *testing.T) {
	program, err := conformanceProgram()
	require.NoError(t, err)
	w := root(t)
	for name, tc := range map[string]struct {
		args  []string
		env   []string
		skips string // API tests that may be skipped: what docs/serve.md lists
	}{
		"directory": {args: []string{"--sparse", filepath.Join(w.home, "directory")}, env: []string{"OCI_DATA_SPARSE=true"}},
		// Without --sparse a manifest that names what is not there is refused: those tests are switched off.
		"strict": {args: []string{filepath.Join(w.home, "strict")}, env: []string{"OCI_DATA_SPARSE=false"}},
		// Blobs of the store are deleted by its collector only.
		"store": {args: []string{"--sparse"}, env: []string{"OCI_DATA_SPARSE=true"}, skips: "Blob delete"},
		"users and TLS": {
			args: append(secured(t, w), "--sparse", filepath.Join(w.home, "secured")),
			env:  []string{"OCI_DATA_SPARSE=true", "OCI_TLS=enabled", "SSL_CERT_FILE=" + filepath.Join(w.home, "certs", "ca.crt"), "OCI_USERNAME=" + testUser, "OCI_PASSWORD=" + testPassword},
		},
	} {
		for _, version := range []string{"1.1", "dev"} {
			t.Run(name+" "+version, func(t *testing.T) {
				s := startServe(t, w, tc.args...)
				results := t.TempDir()
				c := exec.Command(program)
				c.Dir = results
				c.Env = append(os.Environ(), append([]string{
					"OCI_REGISTRY=" + s.addr, "OCI_TLS=disabled", "OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two",
					"OCI_VERSION=" + version, "OCI_RESULTS_DIR=" + results,
					"OCI_API_MANIFESTS_TAG_PARAM=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
					"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_DATA_SHA512=true",
				}, tc.env...)...)
				out, err := c.CombinedOutput()
				require.NoError(t, err, "%s", lastLines(string(out), 40))
				checkConformance(t, string(out), filepath.Join(results, "results.yaml"), tc.skips, name == "strict")
			})
		}
	}
}

var conformanceCount = regexp.MustCompile(`(?m)^  (\w+)\.+: +(\d+)$`)

// checkConformance reads what the program printed and wrote: it ends with 0 whatever happens.
func checkConformance(t *testing.T, out, file, skips string, sparseOff bool) {
	t.Helper()
	results, err := os.ReadFile(file)
	require.NoError(t, err, "no result was written:\n%s", lastLines(out, 20))
	counts := map[string]int{}
	for _, m := range conformanceCount.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[2])
		require.NoError(t, err)
		counts[m[1]] = n
	}
	t.Logf("%v", counts)
	require.Greater(t, counts["Total"], 900, "%s", lastLines(out, 60))
	assert.Zero(t, counts["FAIL"])
	assert.Zero(t, counts["Error"])
	if skips == "" && !sparseOff {
		assert.Equal(t, counts["Total"], counts["Pass"], "%s", out)
	}
	if sparseOff {
		assert.Equal(t, counts["Total"], counts["Pass"]+counts["Disabled"])
	}
	for line := range strings.SplitSeq(string(results), "\n") {
		name, verdict, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		switch verdict {
		case "Skip":
			assert.True(t, skips != "" && strings.HasPrefix(name, skips), "%s was skipped", name)
		case "Disabled":
			assert.True(t, sparseOff && name == "Sparse Manifests", "%s is switched off", name)
		case "FAIL", "Fail", "Error":
			assert.Fail(t, line)
		}
	}
}

// The user that secured registries have.
const (
	testUser     = "alice"
	testPassword = "correct horse"
)

// secured returns the flags of a registry with users and TLS; the CA's certificate is DIR/certs/ca.crt, and the
// server's cert.pem and key.pem beside it.
func secured(t *testing.T, w who) []string {
	t.Helper()
	dir := w.dir(t, "certs")
	makeCertificate(t, dir)
	users := filepath.Join(dir, "htpasswd")
	c := exec.Command(tool(t, "htpasswd"), "-nbB", "-C", "5", testUser, testPassword)
	out, err := c.Output()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(users, out, 0o644))
	w.own(t, dir)
	return []string{"--htpasswd", users, "--tls-cert", filepath.Join(dir, "cert.pem"), "--tls-key", filepath.Join(dir, "key.pem")}
}

// makeCertificate writes a CA and a certificate for the loopback.
func makeCertificate(t *testing.T, dir string) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644))
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "manifestctl test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	require.NoError(t, err)
	write("ca.crt", "CERTIFICATE", der)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	require.NoError(t, err)
	write("cert.pem", "CERTIFICATE", der)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write("key.pem", "PRIVATE KEY", der)
}

// served is a running manifestctl serve.
type served struct {
	addr string
	log  string // the file of its stderr
	cmd  *exec.Cmd
}

// startServe starts manifestctl serve as w on a free port of the loopback.
func startServe(t *testing.T, w who, args ...string) *served {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer log.Close()
	c := w.command(nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	c.Stderr = log
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGTERM); _ = c.Wait() })
	s := &served{log: log.Name(), cmd: c}
	at := regexp.MustCompile(`(?m)^serving .* on https?://(\S+)$`)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(log.Name())
		if m := at.FindSubmatch(text); m != nil {
			s.addr = string(m[1])
		}
		return err == nil && s.addr != ""
	}, 2*time.Minute, 20*time.Millisecond, "the registry did not start")
	return s
}
