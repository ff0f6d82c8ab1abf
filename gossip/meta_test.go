package gossip

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func longest() announcement {
	return announcement{
		Meta: Meta{
			Node: math.MaxUint32, Role: strings.Repeat("r", MaxRole), Site: strings.Repeat("s", MaxSite),
			Sync: strings.Repeat("y", MaxAddress), HTTP: strings.Repeat("h", MaxAddress),
		},
		Gossip: strings.Repeat("g", MaxAddress), Leaving: true,
	}
}

func TestAnnouncement_RoundTrip(t *testing.T) {
	for _, want := range []announcement{{}, longest(), {Meta: Meta{Node: 7, Role: "master", Site: "São Paulo"}}} {
		b := want.append(nil)
		if len(b) > memberlist.MetaMaxSize {
			t.Errorf("%d bytes, more than memberlist takes", len(b))
		}
		got, err := parseAnnouncement(b)
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// The bytes of version 1, which released nodes will go on sending.
func TestAnnouncement_Golden(t *testing.T) {
	a := announcement{Meta: Meta{Node: 300, Role: "m", Site: "s", Sync: "a:1", HTTP: ""}, Gossip: "a:2", Leaving: true}
	want := []byte("\x01\x01\xac\x02\x01m\x01s\x03a:1\x00\x03a:2")
	if got := a.append(nil); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseAnnouncement_Refuses(t *testing.T) {
	good := announcement{Meta: Meta{Node: 7, Role: "master"}}.append(nil)
	tooLong := longest()
	tooLong.Site += "x"
	for name, b := range map[string][]byte{
		"Empty":        nil,
		"Version":      append([]byte{2}, good[1:]...),
		"Flags":        append([]byte{1, 2}, good[2:]...),
		"Trailing":     append(bytes.Clone(good), 0),
		"CutShort":     good[:len(good)-1],
		"LongNode":     append([]byte{1, 0, 0x87, 0}, good[3:]...),
		"HugeNode":     append([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, good[3:]...),
		"LengthBeyond": []byte("\x01\x00\x07\xffm"),
		"LongSite":     tooLong.append(nil),
		"Control":      announcement{Meta: Meta{Role: "a\nb"}}.append(nil),
		"NotUTF8":      announcement{Meta: Meta{Role: "\xff"}}.append(nil),
		"Oversized":    bytes.Repeat([]byte{1}, memberlist.MetaMaxSize+1),
	} {
		if a, err := parseAnnouncement(b); err == nil {
			t.Errorf("%s: parsed as %+v", name, a)
		}
	}
}

func FuzzParseAnnouncement(f *testing.F) {
	f.Add(announcement{Meta: Meta{Node: 7, Role: "master"}}.append(nil))
	f.Add(longest().append(nil))
	f.Add([]byte("\x01\x00\x07\xffm"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnnouncement(b)
		if err != nil {
			return
		}
		if got := a.append(nil); !bytes.Equal(got, b) {
			t.Errorf("%q decodes to %+v, which encodes to %q", b, a, got)
		}
	})
}
