package session

import "time"

const (
	// life is the longest a session lasts, give or take a tenth. At its end the
	// replica comes again, which has its certificate judged again and tells the
	// leader how far it is.
	life = 12 * time.Hour
	// silence ends a session whose replica neither says anything nor takes anything
	// for so long.
	silence = 90 * time.Second
)

// A vigil says when a session is over: it was long enough, or the replica shows
// no life.
type vigil struct {
	end   time.Time
	alive time.Time
	in    int64 // what came by then, and what went
	out   int64
}

func (s *Server) newVigil(now time.Time) vigil {
	return vigil{end: now.Add(life*9/10 + s.cfg.Jitter(life/5)), alive: now}
}

// look compares what has come and gone since the last look, in any unit. What
// went counts while something is on its way: then the replica takes it.
func (v *vigil) look(now time.Time, in, out int64, sending bool) error {
	if in != v.in || out != v.out && sending {
		v.alive = now
	}
	v.in, v.out = in, out
	switch {
	case !now.Before(v.end):
		return errLifetime
	case now.Sub(v.alive) > silence:
		return errSilent
	}
	return nil
}

// next is when a look may find the session over.
func (v *vigil) next() time.Time {
	if quiet := v.alive.Add(silence + 1); quiet.Before(v.end) {
		return quiet
	}
	return v.end
}
