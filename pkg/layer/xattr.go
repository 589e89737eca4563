package layer

import (
	"encoding/binary"
	"strings"
)

// The names of extended attributes that mean something on disk.
const (
	xattrCapability = "security.capability"
	xattrSELinux    = "security.selinux"
	xattrUser       = "user."
	xattrOurs       = "user.manifestctl."
	xattrOverlay    = "user.overlay."
	// overlayfs mounted with userxattr shows "user.overlay.overlay.X" as "user.overlay.X".
	xattrOverlayEscaped = "user.overlay.overlay."
	overlayOpaque       = "user.overlay.opaque"
	overlayRedirect     = "user.overlay.redirect"
	overlayMetacopy     = "user.overlay.metacopy"
)

// diskXattr is how an image's attribute is called on disk; "" when it is not kept there. What would
// steer overlayfs is escaped as overlayfs itself does it.
func diskXattr(name string) string {
	switch {
	case name == xattrCapability:
		return name
	case strings.HasPrefix(name, xattrOurs):
		return ""
	case strings.HasPrefix(name, xattrOverlay):
		return xattrOverlayEscaped + name[len(xattrOverlay):]
	case strings.HasPrefix(name, xattrUser) && len(name) > len(xattrUser):
		return name
	}
	return ""
}

// imageXattr is how an attribute on disk is called in the image; "" when it is not part of it.
func imageXattr(name string) string {
	switch {
	case name == xattrCapability:
		return name
	case strings.HasPrefix(name, xattrOurs):
		return ""
	case strings.HasPrefix(name, xattrOverlayEscaped):
		return xattrOverlay + name[len(xattrOverlayEscaped):]
	case strings.HasPrefix(name, xattrOverlay):
		return ""
	case strings.HasPrefix(name, xattrUser) && len(name) > len(xattrUser):
		return name
	}
	return ""
}

// Sizes and revisions of security.capability (struct vfs_cap_data).
const (
	capV2, capV2Size = 0x02000000, 20
	capV3, capV3Size = 0x03000000, 24
	capRevision      = 0xff000000
)

// plainCapability turns a capability of revision 3, which belongs to the root of one user
// namespace of the machine that wrote it, into revision 2, which is what an image means. It reports
// whether that root was another than 0.
func plainCapability(v string) (plain string, foreign bool) {
	if len(v) != capV3Size {
		return v, false
	}
	b := []byte(v)
	magic := binary.LittleEndian.Uint32(b)
	if magic&capRevision != capV3 {
		return v, false
	}
	binary.LittleEndian.PutUint32(b, magic&^uint32(capRevision)|capV2)
	return string(b[:capV2Size]), binary.LittleEndian.Uint32(b[capV2Size:]) != 0
}
