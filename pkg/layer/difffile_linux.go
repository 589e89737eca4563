package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

func (d *differ) device(e *Entry, kind uint32, rdev uint64) {
	e.Type = tar.TypeChar
	if kind == unix.S_IFBLK {
		e.Type = tar.TypeBlock
	}
	e.Major, e.Minor = int64(unix.Major(rdev)), int64(unix.Minor(rdev))
}

// attributes reads the xattrs of an open file: those of the image into e, ours into the result.
func (d *differ) attributes(fd int, e *Entry) (rec Owner, opaque bool, err error) {
	names, err := listXattrs(fd, d.names)
	if err != nil {
		return rec, false, err
	}
	for _, n := range names {
		image := imageXattr(n)
		switch {
		case n == OwnerXattr, n == overlayOpaque, image != "":
		case n == overlayMetacopy, n == overlayRedirect:
			return rec, false, fmt.Errorf("%w: its content is elsewhere (%s): mount the overlay with userxattr only", ErrInvalid, n)
		default:
			continue
		}
		v, err := getXattr(fd, n)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return rec, false, fmt.Errorf("reading extended attribute %s: %w", n, err)
		}
		switch {
		case n == OwnerXattr:
			if err := rec.UnmarshalBinary([]byte(v)); err != nil {
				return rec, false, err
			}
		case n == overlayOpaque:
			opaque = v == "y"
		default:
			if strings.IndexByte(image, '=') >= 0 {
				return rec, false, fmt.Errorf("%w: a tar cannot hold the extended attribute %q", ErrInvalid, n)
			}
			if n == xattrCapability {
				v, _ = plainCapability(v)
			}
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[image] = v
		}
	}
	return rec, opaque, checkXattrs(e, defaultXattrSize)
}

func (d *differ) file(dir int, base string, st *unix.Stat_t, in *level) error {
	e := &d.cur
	fd, restore, err := d.open(dir, base, st, 0)
	if err != nil {
		return d.fail(e.Name, err)
	}
	defer restore()
	defer unix.Close(fd)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return d.fail(e.Name, err)
	}
	if now.Mode&unix.S_IFMT != unix.S_IFREG || now.Ino != st.Ino {
		return d.fail(e.Name, ErrChanged)
	}
	rec, _, err := d.attributes(fd, e)
	if err != nil {
		return d.fail(e.Name, err)
	}
	d.ids(e, st, rec, e.Name)
	switch rec.Type {
	case 0:
		e.Type, e.Size = tar.TypeReg, now.Size
	case unix.S_IFCHR, unix.S_IFBLK:
		d.device(e, rec.Type, rec.Rdev)
		return d.unlessSame(e, &now, -1, base, in)
	default:
		return d.fail(e.Name, fmt.Errorf("%w: %s records mode %o", ErrInvalid, OwnerXattr, rec.Type))
	}
	same, err := d.same(e, &now, fd, base, in)
	if err != nil {
		return err
	}
	if same {
		return d.unchanged(e, in)
	}
	data, err := d.write(e, in)
	if err != nil {
		return err
	}
	if data {
		if err := d.content(fd, e); err != nil {
			return err
		}
	}
	return d.written(e)
}

// content copies exactly e.Size bytes.
func (d *differ) content(fd int, e *Entry) error {
	buf := *d.tw.buf
	left := e.Size
	for i := 0; ; i++ {
		if i%64 == 63 { // every 16 MiB
			if err := context.Cause(d.ctx); err != nil {
				return err
			}
		}
		// Asking for more than is left shows a file that grows, without another call for small ones.
		n, err := unix.Read(fd, buf[:min(int64(len(buf)), left+1)])
		if err == unix.EINTR {
			continue
		}
		switch {
		case err != nil:
			return d.fail(e.Name, err)
		case int64(n) > left, n == 0 && left > 0:
			return d.fail(e.Name, fmt.Errorf("%w: it had %d bytes", ErrChanged, e.Size))
		}
		if n > 0 {
			if _, err := d.tw.tw.Write(buf[:n]); err != nil {
				return fmt.Errorf("writing %q: %w", e.Name, err)
			}
			left -= int64(n)
		}
		if left == 0 && n < len(buf) {
			return nil
		}
	}
}
