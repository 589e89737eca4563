package source

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

func hdr(typeflag byte, name, link string) member {
	return member{Header: tar.Header{Typeflag: typeflag, Name: name, Linkname: link}}
}

func file(name, data string) member {
	return member{Header: tar.Header{Name: name, ModTime: testimage.Epoch}, data: data}
}

func TestTarMembers(t *testing.T) {
	long := strings.Repeat("d/", 150) + "file" // needs a PAX or GNU record
	for name, tc := range map[string]struct {
		members []member
		want    map[string]string // name → data
		absent  string
		wantErr error
	}{
		"files":                {members: []member{file("a", "1"), file("dir/b", strings.Repeat("x", 5000)), file("./c", ""), hdr(tar.TypeDir, "dir/", "")}, want: map[string]string{"a": "1", "dir/b": strings.Repeat("x", 5000), "c": ""}, absent: "dir"},
		"long names":           {members: []member{file(long, "1"), file("z", "2")}, want: map[string]string{long: "1", "z": "2"}},
		"links":                {members: []member{file("a/layer.tar", "1"), hdr(tar.TypeSymlink, "b/layer.tar", "../a/layer.tar"), hdr(tar.TypeLink, "c", "b/layer.tar")}, want: map[string]string{"b/layer.tar": "1", "c": "1"}},
		"dangling link":        {members: []member{hdr(tar.TypeSymlink, "a", "b")}, absent: "a"},
		"a repeated directory": {members: []member{hdr(tar.TypeDir, "d/", ""), hdr(tar.TypeDir, "d", ""), file("d/a", "1")}, want: map[string]string{"d/a": "1"}},

		"A01 ..":            {members: []member{file("../a", "")}, wantErr: ErrInvalid},
		"A01 .. inside":     {members: []member{file("a/../b", "")}, wantErr: ErrInvalid},
		"A01 absolute":      {members: []member{file("/etc/passwd", "")}, wantErr: ErrInvalid},
		"A01 backslash":     {members: []member{file(`a\b`, "")}, wantErr: ErrInvalid},
		"G03 twice":         {members: []member{file("a", "1"), file("./a", "2")}, wantErr: ErrInvalid},
		"G03 device":        {members: []member{hdr(tar.TypeChar, "a", "")}, wantErr: ErrInvalid},
		"G03 FIFO":          {members: []member{hdr(tar.TypeFifo, "a", "")}, wantErr: ErrInvalid},
		"G10 link out":      {members: []member{hdr(tar.TypeSymlink, "a/b", "../../etc/shadow")}, wantErr: ErrInvalid},
		"G10 absolute link": {members: []member{hdr(tar.TypeSymlink, "a", "/etc/shadow")}, wantErr: ErrInvalid},
		"G10 hard link out": {members: []member{hdr(tar.TypeLink, "a", "../b")}, wantErr: ErrInvalid},
		"A33 unknown type":  {members: []member{hdr('Q', "a", "")}, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := openTar(t.Context(), fileOf(t, tarOf(t, tc.members...)), "")
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				return
			}
			defer f.Close()
			for name, data := range tc.want {
				rc, size, err := f.open(name)
				require.NoError(t, err)
				got, err := io.ReadAll(rc)
				require.NoError(t, err)
				assert.Equal(t, data, string(got))
				assert.Equal(t, int64(len(data)), size)
			}
			if tc.absent != "" {
				_, _, err = f.open(tc.absent)
				require.ErrorIs(t, err, fs.ErrNotExist)
			}
		})
	}
}

// TestTarLinkCycle: G10, links that lead to each other.
func TestTarLinkCycle(t *testing.T) {
	f, err := openTar(t.Context(), fileOf(t, tarOf(t, hdr(tar.TypeSymlink, "a", "b"), hdr(tar.TypeSymlink, "b", "a"))), "")
	require.NoError(t, err)
	defer f.Close()
	_, _, err = f.open("a")
	require.ErrorIs(t, err, ErrInvalid)
}

// TestTarLies: A19, headers whose size is no size; the bytes of a header are written by hand.
func TestTarLies(t *testing.T) {
	for name, size := range map[string]string{
		"larger than the file": "00077777777\x00",
		"negative":             "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"2^62":                 "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00",
		"2^63-1":               "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff",
		"no number":            "x\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			raw := tarOf(t, file("a", "1"))
			copy(raw[124:136], size)
			seal(raw[:512])
			_, err := openTar(t.Context(), fileOf(t, raw), "")
			require.ErrorIs(t, err, ErrInvalid)
		})
	}
}

// seal writes a header's check sum.
func seal(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// TestTarSparse: A20, an archive of blobs has no holes.
func TestTarSparse(t *testing.T) {
	record := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n24 GNU.sparse.name=hole\n34 GNU.sparse.realsize=1000000000\n"
	raw := tarOf(t, file("pax", record), file("a", "1\n0\n1\n"+strings.Repeat("\x00", 506)+"x"))
	raw[156] = tar.TypeXHeader
	seal(raw[:512])
	_, err := openTar(t.Context(), fileOf(t, raw), "")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "sparse")

	raw = tarOf(t, file("a", "1"))
	raw[156] = tar.TypeGNUSparse
	seal(raw[:512])
	_, err = openTar(t.Context(), fileOf(t, raw), "")
	require.ErrorIs(t, err, ErrInvalid)
}

// TestArchiveCut: A23 and G04, an archive cut anywhere is refused, or lacks something and says so; it never reads as whole.
func TestArchiveCut(t *testing.T) {
	content := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "data")))
	archive := testimage.OCIArchive(map[string]testimage.Content{"": content})
	end := len(archive) - 1024 // the two empty blocks of the end are no content
	for n := 0; n < end; n += 97 {
		err := readEverything(t, "oci-archive:"+fileOf(t, archive[:n]))
		if end-n >= 512 { // in the last member's padding nothing is missing
			require.Error(t, err, "cut at %d", n)
		}
	}
	_, err := open(t, "oci-archive:"+fileOf(t, archive[:end-500]))
	require.ErrorContains(t, err, "incomplete", "G04")
	for name, data := range map[string][]byte{"gzip": gzipped(t, archive), "zstd": zstded(t, archive)} {
		for n := 0; n < len(data); n++ {
			if n > 32 && n < len(data)-32 {
				n += 6 // every byte of head and tail, some in between
			}
			require.Error(t, readEverything(t, "oci-archive:"+fileOf(t, data[:n])), "%s cut at %d", name, n)
		}
		require.NoError(t, readEverything(t, "oci-archive:"+fileOf(t, data)))
	}
}

// TestArchiveFlip: G01, no flipped bit goes unnoticed where it matters.
func TestArchiveFlip(t *testing.T) {
	content := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "data")))
	archive := testimage.OCIArchive(map[string]testimage.Content{"": content})
	for n := 0; n < len(archive); n += 13 {
		flipped := append([]byte(nil), archive...)
		flipped[n] ^= 4
		name := fileOf(t, flipped)
		img, err := (&Opener{}).Open(t.Context(), asRef(t, "oci-archive:"+name))
		if err != nil {
			continue
		}
		// What can still be read is what its digest says.
		for d, want := range content.Blobs {
			desc := content.Desc
			desc.Digest, desc.Size = d, int64(len(want))
			if got, err := readAll(t.Context(), img, desc); err == nil {
				require.Equal(t, want, got)
			}
		}
		require.NoError(t, img.Close())
	}
}

// TestSpoolLeavesNothing: the temporary file has no name while the image is open, and none afterwards.
func TestSpoolLeavesNothing(t *testing.T) {
	archive := gzipped(t, testimage.OCIArchive(map[string]testimage.Content{"": three()}))
	for name, data := range map[string][]byte{"whole": archive, "cut": archive[:len(archive)/2], "no tar": gzipped(t, []byte(strings.Repeat("x", 5000)))} {
		t.Run(name, func(t *testing.T) {
			spool := t.TempDir()
			img, err := (&Opener{Spool: spool}).Open(t.Context(), asRef(t, "oci-archive:"+fileOf(t, data)))
			assert.Equal(t, name == "whole", err == nil)
			if err == nil {
				require.NoError(t, img.Close())
			}
			left, err := os.ReadDir(spool)
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
	_, err := (&Opener{Spool: t.TempDir() + "/absent"}).Open(t.Context(), asRef(t, "oci-archive:"+fileOf(t, archive)))
	require.ErrorIs(t, err, fs.ErrNotExist)
}
