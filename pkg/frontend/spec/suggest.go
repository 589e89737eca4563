package spec

import (
	"fmt"
	"strings"
)

// didYouMean is the hint for an unknown word: the nearest of known, else the list of them.
func didYouMean(word string, known []string) string {
	if best := nearest(word, known); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if len(known) == 0 {
		return ""
	}
	return "known are: " + strings.Join(known, ", ")
}

// nearest returns the word of known that is the fewest edits away from word, "" when none is near.
func nearest(word string, known []string) string {
	best, bestCost := "", min(max(len(word)/3, 1)+1, len(word))
	lower := strings.ToLower(word)
	if len(lower) > 64 {
		return ""
	}
	for _, k := range known {
		if c := edits(lower, strings.ToLower(k)); c < bestCost {
			best, bestCost = k, c
		}
	}
	if best == "" {
		for _, k := range known { // "groups" for "group_names", "env" for "environment"
			if len(k) > 2 && strings.HasPrefix(lower, k) {
				return k
			}
		}
	}
	return best
}

// edits counts insertions, deletions, replacements and swaps of neighbours from a to b.
func edits(a, b string) int {
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
