package sim

import (
	"regexp"
	"slices"
	"time"
)

// Effort bounds a shrinking.
type Effort struct {
	Plays int
	Time  time.Duration
}

// DefaultEffort is what a failure is worth.
var DefaultEffort = Effort{Plays: 150, Time: 3 * time.Minute}

var invariantName = regexp.MustCompile(`I\d\d, |panic: `)

// symptom is what makes two failures the same one: the invariant that is broken.
func symptom(err error) string {
	if err == nil {
		return ""
	}
	if name := invariantName.FindString(err.Error()); name != "" {
		return name
	}
	return "other"
}

// Shrink looks for a shorter Script that breaks the same invariant: it drops
// halves of the steps, then quarters and so on (Zeller's ddmin, IEEE TSE 28(2),
// 2002), all kinds together and at last each step alone, as long as the effort
// allows. A dropped step changes what is drawn after it, so the result need not be
// the shortest. play returns why a Script fails, nil if it does not.
func Shrink(s *Script, why error, e Effort, play func(*Script) error) (*Script, error) {
	want, until := symptom(why), time.Now().Add(e.Time)
	best := *s
	for size := max(1, len(s.Steps)/2); e.Plays > 0; {
		shorter := false
		for at := 0; at < len(best.Steps) && e.Plays > 0 && time.Now().Before(until); {
			try := best
			try.Steps = slices.Delete(slices.Clone(best.Steps), at, min(at+size, len(best.Steps)))
			e.Plays--
			if err := play(&try); symptom(err) == want {
				best, why, shorter = try, err, true
			} else {
				at += size
			}
		}
		if size == 1 && !shorter || !time.Now().Before(until) {
			break
		}
		size = max(1, size/2)
	}
	return &best, why
}
