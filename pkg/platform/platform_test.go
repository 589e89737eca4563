package platform

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    Platform
		text    string // "": as in
		wantErr error
	}{
		"plain":                 {in: "linux/amd64", want: Platform{OS: "linux", Arch: "amd64"}},
		"amd64 drops v1":        {in: "linux/amd64/v1", want: Platform{OS: "linux", Arch: "amd64"}, text: "linux/amd64"},
		"amd64 level":           {in: "linux/amd64/v3", want: Platform{OS: "linux", Arch: "amd64", Variant: "v3"}},
		"level without v":       {in: "linux/amd64/3", want: Platform{OS: "linux", Arch: "amd64", Variant: "v3"}, text: "linux/amd64/v3"},
		"arm64 drops v8":        {in: "linux/arm64/v8", want: Platform{OS: "linux", Arch: "arm64"}, text: "linux/arm64"},
		"arm64 drops v8.0":      {in: "linux/arm64/v8.0", want: Platform{OS: "linux", Arch: "arm64"}, text: "linux/arm64"},
		"arm64 v9":              {in: "linux/arm64/9", want: Platform{OS: "linux", Arch: "arm64", Variant: "v9"}, text: "linux/arm64/v9"},
		"arm is v7":             {in: "linux/arm", want: Platform{OS: "linux", Arch: "arm", Variant: "v7"}, text: "linux/arm/v7"},
		"arm v5":                {in: "linux/arm/v5", want: Platform{OS: "linux", Arch: "arm", Variant: "v5"}},
		"armhf":                 {in: "linux/armhf", want: Platform{OS: "linux", Arch: "arm", Variant: "v7"}, text: "linux/arm/v7"},
		"armel":                 {in: "linux/armel", want: Platform{OS: "linux", Arch: "arm", Variant: "v6"}, text: "linux/arm/v6"},
		"i386 has no variant":   {in: "linux/i386/x", want: Platform{OS: "linux", Arch: "386"}, text: "linux/386"},
		"x86_64":                {in: "Linux/X86_64", want: Platform{OS: "linux", Arch: "amd64"}, text: "linux/amd64"},
		"aarch64 alone":         {in: "aarch64", want: Platform{OS: "linux", Arch: "arm64"}, text: "linux/arm64"},
		"ppc64el":               {in: "linux/ppc64el", want: Platform{OS: "linux", Arch: "ppc64le"}, text: "linux/ppc64le"},
		"macos":                 {in: "macos/arm64", want: Platform{OS: "darwin", Arch: "arm64"}, text: "darwin/arm64"},
		"free variant":          {in: "linux/ppc64le/power9", want: Platform{OS: "linux", Arch: "ppc64le", Variant: "power9"}},
		"version":               {in: "windows(10.0.17763)/amd64", want: Platform{OS: "windows", Arch: "amd64", OSVersion: "10.0.17763"}},
		"version at the end":    {in: "windows/amd64:10.0.17763", want: Platform{OS: "windows", Arch: "amd64", OSVersion: "10.0.17763"}, text: "windows(10.0.17763)/amd64"},
		"no version":            {in: "linux()/amd64", want: Platform{OS: "linux", Arch: "amd64"}, text: "linux/amd64"},
		"version and features":  {in: "windows(10.0+z+a+a)/amd64", want: Platform{OS: "windows", Arch: "amd64", OSVersion: "10.0", OSFeatures: "a+z"}, text: "windows(10.0+a+z)/amd64"},
		"features":              {in: "windows(+win32k)/amd64", want: Platform{OS: "windows", Arch: "amd64", OSFeatures: "win32k"}},
		"escaped version":       {in: "linux(5.1%2B2)/amd64", want: Platform{OS: "linux", Arch: "amd64", OSVersion: "5.1+2"}},
		"needless escape":       {in: "linux(%41)/amd64", want: Platform{OS: "linux", Arch: "amd64", OSVersion: "A"}, text: "linux(A)/amd64"},
		"empty":                 {in: "", wantErr: ErrInvalid},
		"no arch":               {in: "linux", wantErr: ErrInvalid},
		"no os":                 {in: "/amd64", wantErr: ErrInvalid},
		"empty arch":            {in: "linux/", wantErr: ErrInvalid},
		"empty variant":         {in: "linux/arm/", wantErr: ErrInvalid},
		"four parts":            {in: "linux/arm/v7/x", wantErr: ErrInvalid},
		"unknown arch":          {in: "linux/z80", wantErr: ErrInvalid},
		"unknown os":            {in: "linus/amd64", wantErr: ErrInvalid},
		"unknown variant":       {in: "linux/amd64/v9", wantErr: ErrInvalid},
		"swapped":               {in: "arm64/linux", wantErr: ErrInvalid},
		"pattern":               {in: "linux/*", wantErr: ErrInvalid},
		"blank":                 {in: "linux/ amd64", wantErr: ErrInvalid},
		"open":                  {in: "windows(10/amd64", wantErr: ErrInvalid},
		"text after close":      {in: "windows(10)x/amd64", wantErr: ErrInvalid},
		"half an escape":        {in: "windows(%4)/amd64", wantErr: ErrInvalid},
		"no escape":             {in: "windows(1 0)/amd64", wantErr: ErrInvalid},
		"empty feature":         {in: "windows(10+)/amd64", wantErr: ErrInvalid},
		"two versions":          {in: "windows(10)/amd64:11", wantErr: ErrInvalid},
		"megabytes":             {in: "linux/" + strings.Repeat("a", 1<<20), wantErr: ErrInvalid},
		"control characters":    {in: "linux/\x1b[2J", wantErr: ErrInvalid},
		"unknown of the pushed": {in: "unknown/unknown", wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tc.in)
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.want, got)
			if err != nil {
				assert.Less(t, len(err.Error()), 400)
				assert.NotContains(t, err.Error(), "\x1b")
				return
			}
			if tc.text == "" {
				tc.text = tc.in
			}
			assert.Equal(t, tc.text, got.String())
		})
	}
}

func TestParseSuggests(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd46":    `did you mean "amd64"`,
		"linux/arch64":   `did you mean "aarch64"`,
		"linux/riscv46":  `did you mean "riscv64"`,
		"linx/arm64":     `did you mean "linux"`,
		"lunix/arm64":    `did you mean "linux"`,
		"linux/arm/v77":  "v5, v6, v7, v8",
		"linux/amd64/v9": "v1, v2, v3, v4",
		"linux/z80":      "known are amd64, arm64, arm, 386, riscv64",
		"arm64/linux":    "write linux/arm64",
		"linux":          "write linux/ARCH",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := Parse(in)
			require.ErrorIs(t, err, ErrInvalid)
			assert.ErrorContains(t, err, want)
			assert.ErrorContains(t, err, `"`+in+`"`)
		})
	}
}

func TestParseList(t *testing.T) {
	got, err := ParseList("linux/amd64,linux/arm64/v8", " linux/aarch64 , arm")
	require.NoError(t, err)
	assert.Equal(t, []Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "arm64"}, {OS: "linux", Arch: "arm", Variant: "v7"}}, got)

	_, err = ParseList("linux/amd64,,linux/x", "linux/y")
	require.ErrorIs(t, err, ErrInvalid)
	assert.ErrorContains(t, err, `"linux/x"`)
	assert.ErrorContains(t, err, `"linux/y"`, "every wrong one is named")
}

func TestFromOCI(t *testing.T) {
	for name, tc := range map[string]struct {
		in      ocispec.Platform
		want    string
		wantErr error
	}{
		"arm64/v8":     {in: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, want: "linux/arm64"},
		"uname's name": {in: ocispec.Platform{OS: "Linux", Architecture: "x86_64"}, want: "linux/amd64"},
		"attestation":  {in: ocispec.Platform{OS: "unknown", Architecture: "unknown"}, want: "unknown/unknown"},
		"new machine":  {in: ocispec.Platform{OS: "linux", Architecture: "e2k", Variant: "v8.0"}, want: "linux/e2k/v8.0"},
		"windows":      {in: ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.1", OSFeatures: []string{"b", "a", "b"}}, want: "windows(10.0.1+a+b)/amd64"},
		"odd text":     {in: ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "a/b", OSFeatures: []string{"x+y", ""}}, want: "linux(a%2Fb+x%2By)/amd64"},
		"no os":        {in: ocispec.Platform{Architecture: "amd64"}, wantErr: ErrInvalid},
		"no arch":      {in: ocispec.Platform{OS: "linux"}, wantErr: ErrInvalid},
		"path":         {in: ocispec.Platform{OS: "linux", Architecture: "../x"}, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromOCI(tc.in)
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.want, got.String())
			if err == nil {
				again, err := FromOCI(got.OCI())
				require.NoError(t, err)
				assert.Equal(t, got, again)
			}
		})
	}
}

func TestZero(t *testing.T) {
	assert.True(t, Platform{}.IsZero())
	assert.Empty(t, Platform{}.String())
	assert.Equal(t, Platform{}, Normalise(Platform{}))
}

func TestKnown(t *testing.T) {
	seen := map[Platform]bool{}
	for _, p := range Known() {
		t.Run(p.String(), func(t *testing.T) {
			assert.False(t, seen[p], "twice in the table")
			seen[p] = true
			got, err := Parse(p.String())
			require.NoError(t, err)
			assert.Equal(t, p, got)
			assert.Equal(t, p.Arch, p.Spellings().Go)
			assert.NotEmpty(t, p.Spellings().Rust)

			// The names of other vocabularies are understood again: never as another architecture.
			for _, name := range []string{p.Spellings().Deb, p.Spellings().Uname, p.Spellings().RPM} {
				if name == "" || name == "mips" || name == "mips64" { // uname does not tell the byte order
					continue
				}
				got, err := Parse(p.OS + "/" + name)
				require.NoError(t, err, name)
				assert.Equal(t, p.Arch, got.Arch, name)
			}
		})
	}
}

func TestSpellings(t *testing.T) {
	for in, want := range map[string]Spellings{
		"linux/arm":       {"armhf", "armv7l", "arm-linux-gnueabihf", "armv7-unknown-linux-gnueabihf", "armv7", "armv7hl", "arm"},
		"linux/arm/v8":    {"armhf", "armv7l", "arm-linux-gnueabihf", "armv7-unknown-linux-gnueabihf", "armv7", "armv7hl", "arm"},
		"linux/arm64/v9":  {"arm64", "aarch64", "aarch64-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64", "aarch64", "arm64"},
		"linux/ppc64le/x": {"ppc64el", "ppc64le", "powerpc64le-linux-gnu", "powerpc64le-unknown-linux-gnu", "ppc64le", "ppc64le", "ppc64le"},
		"linux/sparc64":   {Go: "sparc64"},
	} {
		p, err := Parse(in)
		require.NoError(t, err)
		assert.Equal(t, want, p.Spellings(), in)
	}
}

func TestMatch(t *testing.T) {
	for name, tc := range map[string]struct {
		pattern string
		yes, no string // space separated
		wantErr error
	}{
		"platform":            {pattern: "linux/amd64", yes: "linux/amd64 linux/amd64/v3", no: "linux/arm64 darwin/amd64 linux/386"},
		"one variant":         {pattern: "linux/arm/v7", yes: "linux/arm", no: "linux/arm/v6 linux/arm64"},
		"any variant":         {pattern: "linux/arm/*", yes: "linux/arm linux/arm/v5", no: "linux/arm64"},
		"any variant, short":  {pattern: "linux/arm", yes: "linux/arm linux/arm/v5", no: "linux/arm64"},
		"plain amd64":         {pattern: "linux/amd64/v1", yes: "linux/amd64", no: "linux/amd64/v2"},
		"plain arm64":         {pattern: "linux/arm64/v8", yes: "linux/arm64", no: "linux/arm64/v9"},
		"any arch":            {pattern: "linux/*", yes: "linux/amd64 linux/arm/v6 linux/s390x", no: "darwin/arm64"},
		"os":                  {pattern: "linux", yes: "linux/amd64 linux/arm/v6", no: "darwin/arm64"},
		"any os":              {pattern: "*/arm64", yes: "linux/arm64 darwin/arm64 windows(10.0.1)/arm64", no: "linux/arm"},
		"arch":                {pattern: "arm64", yes: "linux/arm64 darwin/arm64", no: "linux/arm"},
		"alias":               {pattern: "linux/x86_64", yes: "linux/amd64", no: "linux/arm64"},
		"alias with variant":  {pattern: "linux/armhf", yes: "linux/arm/v7", no: "linux/arm/v6"},
		"part of a name":      {pattern: "linux/mips*", yes: "linux/mips64le linux/mipsle", no: "linux/arm"},
		"part of a variant":   {pattern: "linux/arm64/v9*", yes: "linux/arm64/v9 linux/arm64/v9.2", no: "linux/arm64"},
		"all":                 {pattern: "*", yes: "linux/amd64 windows/arm64 linux/arm/v5"},
		"all, longer":         {pattern: "*/*/*", yes: "linux/amd64 windows/arm64 linux/arm/v5"},
		"version":             {pattern: "windows(10.0.17763)/*", yes: "windows(10.0.17763)/amd64 windows(10.0.17763.55)/amd64", no: "windows/amd64 windows(10.0.177631)/amd64"},
		"feature":             {pattern: "windows(+win32k)/amd64", yes: "windows(10.0+win32k+x)/amd64", no: "windows(10.0)/amd64"},
		"empty":               {pattern: "", wantErr: ErrInvalid},
		"unknown arch":        {pattern: "linux/amd46", wantErr: ErrInvalid},
		"unknown arch of any": {pattern: "*/amd46", wantErr: ErrInvalid},
		"unknown os":          {pattern: "linus/*", wantErr: ErrInvalid},
		"unknown variant":     {pattern: "linux/arm/v9", wantErr: ErrInvalid},
		"unknown alone":       {pattern: "amd46", wantErr: ErrInvalid},
		"class":               {pattern: "linux/[a]rm", wantErr: ErrInvalid},
		"four parts":          {pattern: "*/*/*/*", wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			for want, list := range map[bool]string{true: tc.yes, false: tc.no} {
				for _, s := range strings.Fields(list) {
					p, err := Parse(s)
					require.NoError(t, err)
					got, err := Match(tc.pattern, p)
					require.NoError(t, err)
					assert.Equal(t, want, got, s)
				}
			}
			_, err := Match(tc.pattern, Platform{OS: "linux", Arch: "amd64"})
			require.ErrorIs(t, err, tc.wantErr)
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range Known() {
		f.Add(p.String())
	}
	for alias := range archAliases {
		f.Add("linux/" + alias)
	}
	for _, s := range []string{"windows(10.0.17763+win32k)/amd64", "linux(%00%2F)/arm64/v9.2", "amd64:1", "", "macos/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		again, err := Parse(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
		require.Equal(t, p, Normalise(p))
		oci, err := FromOCI(p.OCI())
		require.NoError(t, err)
		require.Equal(t, p, oci)
		matches, err := Match(p.String(), p)
		require.NoError(t, err)
		require.True(t, matches)
	})
}

func FuzzFromOCI(f *testing.F) {
	f.Add("linux", "arm64", "v8", "1.2", "a", "b")
	f.Fuzz(func(t *testing.T, os, arch, variant, version, feature1, feature2 string) {
		p, err := FromOCI(ocispec.Platform{OS: os, Architecture: arch, Variant: variant, OSVersion: version, OSFeatures: []string{feature1, feature2}})
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		again, err := FromOCI(p.OCI())
		require.NoError(t, err)
		require.Equal(t, p, again)
		if knownOS[p.OS] && knownArch[p.Arch] && len(p.String()) <= maxText && (variants[p.Arch] == nil || p.Variant == "") {
			parsed, err := Parse(p.String())
			require.NoError(t, err)
			require.Equal(t, p, parsed)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{"linux/*", "*/arm64", "linux/arm/v7", "windows(10.*)/*", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range Known() {
			if _, err := Match(s, p); err != nil {
				require.ErrorIs(t, err, ErrInvalid)
			}
		}
	})
}
