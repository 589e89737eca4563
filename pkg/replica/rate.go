package replica

import (
	"context"
	"sync"
	"time"
)

// limiter spaces what is done so that there are no more than so many a second. A pause is made up for by up to one second's
// worth at once.
type limiter struct {
	each  time.Duration // between two units
	now   func() time.Time
	sleep func(context.Context, time.Duration) error

	spacing sync.Mutex // guards next
	next    time.Time  // when the next unit is due
}

// newLimiter limits to perSecond units; 0 or less: nil, which is no limit.
func newLimiter(perSecond float64, now func() time.Time, sleep func(context.Context, time.Duration) error) *limiter {
	if perSecond <= 0 {
		return nil
	}
	return &limiter{each: time.Duration(float64(time.Second) / perSecond), now: now, sleep: sleep}
}

// wait takes n units and waits until they are due.
func (l *limiter) wait(ctx context.Context, n int64) error {
	if l == nil || n <= 0 {
		return nil
	}
	l.spacing.Lock()
	at := l.now()
	if oldest := at.Add(-time.Second); l.next.Before(oldest) {
		l.next = oldest
	}
	due := l.next
	l.next = l.next.Add(time.Duration(n) * l.each)
	l.spacing.Unlock()
	if pause := due.Sub(at); pause > 0 {
		return l.sleep(ctx, pause)
	}
	return nil
}
