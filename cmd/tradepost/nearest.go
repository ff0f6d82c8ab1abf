package main

import "strings"

// nearest returns the word most like s, "" if none is near enough to be meant.
func nearest(s string, words []string) string {
	best, found := 1+len(s)/3, ""
	for _, w := range words {
		if d := distance(strings.ToLower(s), strings.ToLower(w)); d <= best {
			best, found = d-1, w
		}
	}
	return found
}

// didYouMean is the end of a message about a word that does not exist.
func didYouMean(s string, words []string) string {
	if w := nearest(s, words); w != "" {
		return "; did you mean " + w + "?"
	}
	return ""
}

// distance counts the letters to insert, drop, change or swap with their
// neighbour to get from s to t (optimal string alignment).
func distance(s, t string) int {
	two, one := []int(nil), make([]int, len(t)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row := make([]int, len(t)+1)
		row[0] = i
		for j := 1; j <= len(t); j++ {
			change := 1
			if s[i-1] == t[j-1] {
				change = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+change)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one = one, row
	}
	return one[len(t)]
}
