package packages_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/packages"
)

const status = `Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: a
 Package: none of it

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: new
Status: install ok unpacked
Architecture: all
Version: 1:2.0-1
`

const installed = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nP:busybox\nV:1.36-r1\nA:x86_64\nF:bin\nR:busybox"

func TestRead(t *testing.T) {
	for name, tc := range map[string]struct {
		kind packages.Kind
		in   string
		want []packages.Package
	}{
		"dpkg": {packages.Dpkg, status, []packages.Package{{"dpkg", "libc6", "2.36-9", "amd64"}, {"dpkg", "new", "1:2.0-1", "all"}}},
		"dpkg of distroless has no status": {
			packages.Dpkg, "Package: tzdata\nVersion: 2024\nArchitecture: all\n", []packages.Package{{"dpkg", "tzdata", "2024", "all"}},
		},
		"apk":       {packages.APK, installed, []packages.Package{{"apk", "busybox", "1.36-r1", "x86_64"}, {"apk", "musl", "1.2.5-r0", "x86_64"}}},
		"empty":     {packages.APK, "", nil},
		"long line": {packages.Dpkg, "Package: a\nVersion: 1\nDepends: " + strings.Repeat("x, ", 100_000) + "\n", []packages.Package{{"dpkg", "a", "1", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := packages.Read(tc.kind, strings.NewReader(tc.in))
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
	_, err := packages.Read(packages.Dpkg, strings.NewReader("Package: "+strings.Repeat("x", 5000)+"\n"))
	require.ErrorIs(t, err, packages.ErrInvalid)
}

func TestKindOf(t *testing.T) {
	for name, want := range map[string]packages.Kind{
		"var/lib/dpkg/status": packages.Dpkg, "var/lib/dpkg/status.d/base": packages.Dpkg, "var/lib/dpkg/status.d/base.md5sums": "",
		"var/lib/dpkg/status-old": "", "lib/apk/db/installed": packages.APK, "usr/lib/apk/db/installed": packages.APK,
		"usr/lib/sysimage/rpm/Packages.db": packages.RPMNdb, "var/lib/rpm/Packages": packages.RPMBdb, "var/lib/rpm/rpmdb.sqlite": packages.RPMSQLite,
		"opt/var/lib/dpkg/status": "",
	} {
		assert.Equal(t, want, packages.KindOf(name), name)
	}
}

// rpmDatabase makes a database by rpm itself, with packages that rpmbuild makes: one with a header longer than a page.
func rpmDatabase(t testing.TB) []byte {
	t.Helper()
	for _, tool := range []string{"rpm", "rpmbuild"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is missing: make deps", tool)
			}
			t.Skipf("%s is not installed: apt-get install rpm", tool)
		}
	}
	dir := t.TempDir()
	run := func(args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+dir)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	db := filepath.Join(dir, "db")
	files := []string{}
	for _, p := range []struct{ name, version, more string }{
		{"small", "1.0", ""}, {"large", "2.5", "Epoch: 3\n"},
	} {
		spec := filepath.Join(dir, p.name+".spec")
		text := "Name: " + p.name + "\nVersion: " + p.version + "\nRelease: 7\n" + p.more + "Summary: x\nLicense: MIT\nBuildArch: noarch\n%description\n"
		if p.name == "large" {
			text += strings.Repeat("A long description of many words that say nothing.\n", 2000)
		}
		text += "%install\nmkdir -p %{buildroot}/usr/share/" + p.name + "\ntouch %{buildroot}/usr/share/" + p.name + "/f\n%files\n/usr/share/" + p.name + "\n"
		require.NoError(t, os.WriteFile(spec, []byte(text), 0o644))
		run("rpmbuild", "-bb", "--define", "_topdir "+dir+"/build", "--define", "_dbpath "+db, spec)
		files = append(files, filepath.Join(dir, "build", "RPMS", "noarch", p.name+"-"+p.version+"-7.noarch.rpm"))
	}
	run(append([]string{"rpm", "--define", "_db_backend sqlite", "--dbpath", db, "--justdb", "--nodeps", "--noscripts", "--nosignature", "-i"}, files...)...)
	b, err := os.ReadFile(filepath.Join(db, "rpmdb.sqlite"))
	require.NoError(t, err)
	return b
}

// What rpm writes is read as it reads it.
func TestReadAtRPM(t *testing.T) {
	want := []packages.Package{{"rpm", "large", "3:2.5-7", "noarch"}, {"rpm", "small", "1.0-7", "noarch"}}
	b := rpmDatabase(t)
	got, err := packages.ReadAt(packages.RPMSQLite, bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	assert.Equal(t, want, got)
	// Cut anywhere, or with a byte changed: an error or fewer packages, and an end.
	for n := 0; n < len(b); n += 997 {
		_, _ = packages.ReadAt(packages.RPMSQLite, bytes.NewReader(b[:n]), int64(n))
		c := bytes.Clone(b)
		c[n] ^= 0xff
		if _, err := packages.ReadAt(packages.RPMSQLite, bytes.NewReader(c), int64(len(c))); err != nil {
			require.ErrorIs(t, err, packages.ErrInvalid)
		}
	}
}

// The other formats are made by hand: no tool of Debian writes them. The header in the hash stands on two overflow pages.
func TestReadAtOld(t *testing.T) {
	for kind, b := range map[packages.Kind][]byte{packages.RPMBdb: bdb(), packages.RPMNdb: ndb()} {
		got, err := packages.ReadAt(kind, bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		assert.Equal(t, []packages.Package{{"rpm", "bash", "5.1-2", "x86_64"}}, got)
	}
}
