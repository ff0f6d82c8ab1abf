package syncproto

import "testing"

func TestNegotiate(t *testing.T) {
	tests := []struct {
		ourMin, ourMax, theirMin, theirMax, want uint16
		err                                      string
	}{
		{1, 1, 1, 1, 1, ""},
		{1, 3, 2, 5, 3, ""},
		{2, 5, 1, 3, 3, ""},
		{3, 4, 1, 3, 3, ""},
		{1, 1, 2, 3, 0, "the peer speaks 2 to 3, this node 1 to 1: upgrade this node"},
		{4, 5, 1, 3, 0, "upgrade the peer"},
		{1, 9, 3, 2, 0, "the peer's range is damaged"},
		{1, 1, 0, 0, 0, "the peer's range is damaged"},
	}
	for _, tt := range tests {
		got, err := Negotiate(tt.ourMin, tt.ourMax, tt.theirMin, tt.theirMax)
		if got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
		if tt.err != "" {
			wantError(t, err, CodeVersion, tt.err)
		} else if err != nil {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
