package sandbox

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestCreds: who may become whom, by kernel/sys.c.
func TestCreds(t *testing.T) {
	mixed := ids{1, 2, 3, 2}
	for name, tc := range map[string]struct {
		do   func(ids, bool) (ids, syscall.Errno)
		root bool
		want ids
		err  syscall.Errno
	}{
		"setuid by root sets all":       {do: func(i ids, r bool) (ids, syscall.Errno) { return i.set(9, r) }, root: true, want: ids{9, 9, 9, 9}},
		"setuid to the saved one":       {do: func(i ids, r bool) (ids, syscall.Errno) { return i.set(3, r) }, want: ids{1, 3, 3, 3}},
		"setuid to the effective one":   {do: func(i ids, r bool) (ids, syscall.Errno) { return i.set(2, r) }, err: syscall.EPERM},
		"setuid to nobody":              {do: func(i ids, r bool) (ids, syscall.Errno) { return i.set(noID, r) }, root: true, err: syscall.EINVAL},
		"setreuid swaps, and saves":     {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setre(2, 1, r) }, want: ids{2, 1, 1, 1}},
		"setreuid keeps the saved one":  {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setre(noID, 1, r) }, want: ids{1, 1, 3, 1}},
		"setreuid of the real to saved": {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setre(3, noID, r) }, err: syscall.EPERM},
		"setresuid":                     {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setres(3, noID, 1, r) }, want: ids{3, 2, 1, 2}},
		"setresuid to another":          {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setres(3, 7, 1, r) }, err: syscall.EPERM},
		"setfsuid to the saved one":     {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setfs(3, r), 0 }, want: ids{1, 2, 3, 3}},
		"setfsuid to another":           {do: func(i ids, r bool) (ids, syscall.Errno) { return i.setfs(7, r), 0 }, want: mixed},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.do(mixed, tc.root)
			assert.Equal(t, tc.err, err)
			if err == 0 {
				assert.Equal(t, tc.want, got)
			} else {
				assert.Equal(t, mixed, got, "nothing changes")
			}
		})
	}
	c := credsAs(33, 34, []uint32{40, 41})
	assert.Equal(t, []uint32{40, 41}, c.groupList())
	assert.True(t, c.mayChown(33, 34, noID, 41))
	assert.False(t, c.mayChown(33, 34, noID, 42))
	assert.False(t, c.mayChown(33, 34, 35, noID))
	assert.False(t, c.mayChown(5, 5, noID, 40))
	root := c.exec(0, noID)
	assert.Equal(t, ids{33, 0, 0, 0}, root.uids())
	assert.True(t, root.mayChown(5, 5, 6, 7))
	assert.Equal(t, root.gids(), c.gids())
}
