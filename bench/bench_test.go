package main

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if servesChild(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// TestQuick runs every section on tiny data: answers are compared, figures are
// not judged.
func TestQuick(t *testing.T) {
	b, err := run(t.Context(), smoke())
	if err != nil {
		t.Fatal(err)
	}
	text := b.markdown()
	for _, s := range []section{onDisk, decided, distance, branch, catchUp} {
		for _, op := range s.operations {
			if !strings.Contains(text, "| "+op) {
				t.Errorf("no row for %q", op)
			}
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
