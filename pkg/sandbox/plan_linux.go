package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// plan is how agents get their ids.
type plan struct {
	mode       Mode
	recorded   bool // owners are recorded, as with a single uid: root may give files to nobody
	uids, gids []span
	uidTool    string // newuidmap; "" when this process writes the maps
	gidTool    string
}

// choosePlans returns what may work on this host, best first; starting an agent tells. With o.Mode there is one.
func choosePlans(o Options) ([]plan, map[Mode]error, error) {
	var plans []plan
	errs := map[Mode]error{}
	for _, mode := range []Mode{ModeRoot, ModeRanges, ModeSingle, ModeChroot, ModeInPlace} {
		if o.Mode == "" && mode == ModeInPlace || o.Mode != "" && o.Mode != mode { // the last is never chosen
			continue
		}
		pl, err := newPlan(mode, o)
		if err != nil {
			errs[mode] = err
			continue
		}
		plans = append(plans, pl)
	}
	if len(plans) == 0 && len(errs) == 0 {
		return nil, nil, fmt.Errorf("mode %q: %w: there are root, ranges, single, chroot and inplace", o.Mode, errors.ErrUnsupported)
	}
	return plans, errs, nil
}

// newPlan finds the ids for a mode, or says why there are none.
func newPlan(mode Mode, o Options) (plan, error) {
	switch mode {
	case ModeRoot:
		return rootPlan()
	case ModeRanges:
		return rangesPlan(o)
	case ModeSingle:
		return plan{
			mode: ModeSingle,
			uids: []span{{0, int64(os.Geteuid()), 1}},
			gids: []span{{0, int64(os.Getegid()), 1}},
		}, nil
	case ModeInPlace:
		if _, err := newSwap(o); err != nil {
			return plan{}, err
		}
		uids, gids, err := ownMaps()
		return plan{mode: ModeInPlace, recorded: len(missingOf(ownerCaps)) > 0, uids: uids, gids: gids}, err
	case ModeChroot:
		if os.Geteuid() != 0 {
			return plan{}, fmt.Errorf("%w: chroot is for root only", ErrHost)
		}
		uids, gids, err := ownMaps()
		if err != nil {
			return plan{}, err
		}
		if n := min(reach(uids), reach(gids)); n < minIDs {
			return plan{}, fmt.Errorf("%w: root has only %d ids in this namespace, %d are needed", ErrHost, n, minIDs)
		}
		return plan{mode: ModeChroot, uids: uids, gids: gids}, nil
	}
	return plan{}, fmt.Errorf("%w: there are root, ranges, single, chroot and inplace", errors.ErrUnsupported)
}

// ownMaps are the ids of this process's user namespace.
func ownMaps() (uids, gids []span, err error) {
	if uids, err = ownMap("uid"); err != nil {
		return nil, nil, err
	}
	gids, err = ownMap("gid")
	return uids, gids, err
}

// rootPlan maps every id this process has to itself.
func rootPlan() (plan, error) {
	if os.Geteuid() != 0 {
		return plan{}, fmt.Errorf("%w: only root's ids can be mapped without help", ErrHost)
	}
	uids, gids, err := ownMaps()
	if err != nil {
		return plan{}, err
	}
	if n := min(reach(uids), reach(gids)); n < minIDs {
		return plan{}, fmt.Errorf("%w: root has only %d ids in this namespace, %d are needed", ErrHost, n, minIDs)
	}
	return plan{mode: ModeRoot, uids: uids, gids: gids}, nil
}

// ownMap is the identity map of all ids of kind ("uid" or "gid") in this process's user namespace.
func ownMap(kind string) ([]span, error) {
	f, err := os.Open("/proc/self/" + kind + "_map")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	defer f.Close()
	m, err := parseMap(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	for i := range m {
		m[i].Outside = m[i].Inside
	}
	return m, nil
}

// rangesPlan maps 0 to the own id and the ids of /etc/subuid behind it.
func rangesPlan(o Options) (plan, error) {
	uidTool, err := lookTool("newuidmap", o.Path)
	if err != nil {
		return plan{}, err
	}
	gidTool, err := lookTool("newgidmap", o.Path)
	if err != nil {
		return plan{}, err
	}
	uid := strconv.Itoa(os.Geteuid())
	name := ""
	if u, err := user.LookupId(uid); err == nil {
		name = u.Username
	}
	uids, err := subIDs("/etc/subuid", name, uid)
	if err != nil {
		return plan{}, err
	}
	gids, err := subIDs("/etc/subgid", name, uid)
	if err != nil {
		return plan{}, err
	}
	pl := plan{
		mode: ModeRanges, uidTool: uidTool, gidTool: gidTool,
		uids: mapRanges(int64(os.Geteuid()), uids),
		gids: mapRanges(int64(os.Getegid()), gids),
	}
	if n := min(reach(pl.uids), reach(pl.gids)); n < minIDs {
		return plan{}, fmt.Errorf("%w: %s has %d ids in /etc/subuid and /etc/subgid, %d are needed: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
			ErrHost, orUID(name, uid), n-1, minIDs-1, orUID(name, uid))
	}
	return pl, nil
}

func orUID(name, uid string) string {
	if name != "" {
		return name
	}
	return "uid " + uid
}

func subIDs(file, name, uid string) ([]span, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	defer f.Close()
	ranges, err := parseSubIDs(f, name, uid)
	if err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", ErrHost, file, err)
	}
	return ranges, nil
}

// lookTool finds a set-uid helper in path ("" is $PATH), then where distributions put it.
func lookTool(name, path string) (string, error) {
	if path == "" {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	for _, dir := range append(strings.Split(path, ":"), "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin") {
		if !strings.HasPrefix(dir, "/") {
			continue
		}
		if p, err := exec.LookPath(dir + "/" + name); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: no %s: install uidmap (shadow-utils)", ErrHost, name)
}

// single reports whether all files belong to one uid, and other owners are recorded.
func (p plan) single() bool { return p.mode == ModeSingle || p.recorded }

// key names mode and map; it is fit for a file's name.
func (p plan) key() string {
	h := sha256.New()
	for _, s := range p.uids {
		fmt.Fprintln(h, "u", s)
	}
	for _, s := range p.gids {
		fmt.Fprintln(h, "g", s)
	}
	mode := string(p.mode)
	if p.recorded {
		mode += "-recorded"
	}
	return mode + "-" + hex.EncodeToString(h.Sum(nil)[:6])
}

// account checks that the ids a step runs as exist in the map, or with a single uid that there is a supervisor.
func (p plan) account(a layer.Account, supervisor error) error {
	name := a.Name
	if name == "" {
		name = fmt.Sprintf("%d:%d", a.UID, a.GID)
	}
	if p.single() {
		if (a.UID != 0 || a.GID != 0) && supervisor != nil {
			return fmt.Errorf("%w: user %s: there is a single uid and no supervisor, so steps can only run as root: %w", ErrOwnership, name, supervisor)
		}
		for _, id := range append([]int{a.UID, a.GID}, a.Groups...) {
			if id < 0 || int64(id) >= int64(noID) {
				return fmt.Errorf("%w: user %s: %d is no id", ErrOwnership, name, id)
			}
		}
		return nil
	}
	uids, gids := reach(p.uids), reach(p.gids)
	if int64(a.UID) >= uids || a.UID < 0 {
		return fmt.Errorf("%w: user %s: uid %d is not among the %d that are mapped: give the user a larger range in /etc/subuid", ErrOwnership, name, a.UID, uids)
	}
	for _, g := range append([]int{a.GID}, a.Groups...) {
		if int64(g) >= gids || g < 0 {
			return fmt.Errorf("%w: user %s: gid %d is not among the %d that are mapped: give the user a larger range in /etc/subgid", ErrOwnership, name, g, gids)
		}
	}
	return nil
}

// mendRanges is what makes other owners possible for an ordinary user.
const mendRanges = "add a range to /etc/subuid and /etc/subgid and install uidmap (newuidmap)"

func sysMap(m []span) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, 0, len(m))
	for _, s := range m {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(s.Inside), HostID: int(s.Outside), Size: int(s.Count)})
	}
	return out
}

// toolArgs is the map as newuidmap wants it.
func toolArgs(pid int, m []span) []string {
	args := []string{strconv.Itoa(pid)}
	for _, s := range m {
		args = append(args, strconv.FormatInt(s.Inside, 10), strconv.FormatInt(s.Outside, 10), strconv.FormatInt(s.Count, 10))
	}
	return args
}
