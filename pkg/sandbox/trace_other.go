//go:build linux && !amd64

package sandbox

import "golang.org/x/sys/unix"

// canTrace says that this machine's registers are known.
const canTrace = false

type regs struct{}

func (r *regs) get(int) error          { return unix.ENOSYS }
func (r *regs) set(int) error          { return unix.ENOSYS }
func (r *regs) nr() uint64             { return 0 }
func (r *regs) args() [6]uint64        { return [6]uint64{} }
func (r *regs) result() uint64         { return 0 }
func (r *regs) atEntry() bool          { return false }
func (r *regs) callMmap(uint64)        {}
func (r *regs) callUnlock()            {}
func (r *regs) again()                 {}
func (r *regs) setExec(uint64, uint64) {}
