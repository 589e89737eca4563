package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// minIDs is how many ids a rootfs needs so that every owner a distribution uses can be kept.
const minIDs = 65536

// span is one line of a user namespace's map: Count ids from Inside on are Outside and following.
type span struct {
	Inside, Outside, Count int64
}

var errMap = errors.New("not an id map")

// parseMap reads /proc/PID/uid_map (user_namespaces(7)).
func parseMap(r io.Reader) ([]span, error) {
	var out []span
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) != 3 {
			return nil, fmt.Errorf("%w: %q", errMap, sc.Text())
		}
		var n [3]int64
		for i := range f {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%w: %q", errMap, sc.Text())
			}
			n[i] = int64(v)
		}
		if n[2] == 0 {
			return nil, fmt.Errorf("%w: %q", errMap, sc.Text())
		}
		out = append(out, span{n[0], n[1], n[2]})
	}
	return out, sc.Err()
}

// parseSubIDs reads /etc/subuid or /etc/subgid (subuid(5)) and returns the ranges of the user, who may be named or
// numbered there. Lines that are not understood are passed over, as newuidmap does.
func parseSubIDs(r io.Reader, name, uid string) ([]span, error) {
	var out []span
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Split(strings.TrimSpace(sc.Text()), ":")
		if len(f) != 3 || f[0] == "" || (f[0] != name && f[0] != uid) {
			continue
		}
		start, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil {
			continue
		}
		count, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || count == 0 || start+count > 1<<32-1 {
			continue
		}
		out = append(out, span{Outside: int64(start), Count: int64(count)})
	}
	return out, sc.Err()
}

// mapRanges puts own at 0 and the ranges behind it, without gaps.
func mapRanges(own int64, ranges []span) []span {
	out := []span{{Inside: 0, Outside: own, Count: 1}}
	next := int64(1)
	for _, r := range ranges {
		if own >= r.Outside && own < r.Outside+r.Count { // the kernel refuses an id that is mapped twice
			continue
		}
		out = append(out, span{Inside: next, Outside: r.Outside, Count: r.Count})
		next += r.Count
	}
	return out
}

// reach is the number of ids from 0 on that are mapped without a gap.
func reach(m []span) int64 {
	var n int64
	for grown := true; grown; {
		grown = false
		for _, s := range m {
			if s.Inside <= n && s.Inside+s.Count > n {
				n, grown = s.Inside+s.Count, true
			}
		}
	}
	return n
}

func (s span) String() string { return fmt.Sprintf("%d-%d-%d", s.Inside, s.Outside, s.Count) }
