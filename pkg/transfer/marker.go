package transfer

import "strings"

// markerPrefix begins the tags of markers; see [Append].
const markerPrefix = "_mctl."

// IsMarker reports whether a tag is a marker of [Append] and no image.
func IsMarker(tag string) bool { return strings.HasPrefix(tag, markerPrefix) }
