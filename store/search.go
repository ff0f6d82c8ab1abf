package store

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Hit is a record that a search found.
type Hit struct {
	Entity *crm.Entity
	Record *crm.Record
	Title  string
	Score  int // the higher the better; comparable within one search only
}

// What one word of the text adds to a record's score. A word of the title
// beats any other, and within each a whole word beats the beginning of one.
const (
	scoreOther      = 1
	scoreOtherWhole = 2
	scoreTitle      = 4
	scoreTitleWhole = 8
)

const (
	maxSearchWords = 8      // words of a text that are searched for
	maxSearchRows  = 20_000 // rows read of the rarest word; whole words come first
	fewHits        = 200    // records whose own words are compared, instead of reading the rows of a further word
)

// Search returns the best limit records of the entities, all entities for none,
// in which every word of the text begins some word of a searchable field. Equal
// scores are ordered by entity and then by id, newest first. Of a text whose
// rarest word begins more than 20,000 words of the index only the first are
// considered: the user has to type on.
func (r *Reader) Search(text string, entities []*crm.Entity, limit int) ([]Hit, error) {
	words := crm.Words(text)
	if len(words) == 0 || limit <= 0 {
		return nil, nil
	}
	words = r.rarestFirst(words[:min(len(words), maxSearchWords)])
	wanted := r.wanted(entities)
	scores := r.searchWord(words[0], wanted, nil)
	for _, w := range words[1:] {
		if len(scores) > fewHits {
			scores = r.searchWord(w, wanted, scores)
		} else if err := r.searchRecords(w, scores); err != nil {
			return nil, err
		}
	}
	return r.hits(scores, limit)
}

// rarestFirst orders words by how many rows begin with them.
func (r *Reader) rarestFirst(words []string) []string {
	if len(words) == 1 {
		return words
	}
	rows := map[string]int{}
	for _, w := range words {
		for m := r.rows(spaceWords, 0, 0, prefixRange([]byte(w))); rows[w] < probe && m.next(); {
			rows[w]++
		}
	}
	slices.SortStableFunc(words, func(a, b string) int { return cmp.Or(cmp.Compare(rows[a], rows[b]), cmp.Compare(len(b), len(a))) })
	return words
}

func (r *Reader) wanted(entities []*crm.Entity) map[crm.EntityID]bool {
	if len(entities) == 0 {
		entities = r.Schema().Entities
	}
	out := map[crm.EntityID]bool{}
	for _, e := range entities {
		out[e.ID] = true
	}
	return out
}

// searchWord returns the records that have the word and, unless before is nil,
// are in before, with their scores added up.
func (r *Reader) searchWord(word string, wanted map[crm.EntityID]bool, before map[RecordKey]int) map[RecordKey]int {
	best := map[RecordKey]int{}
	n := 0
	for m := r.rows(spaceWords, 0, 0, prefixRange([]byte(word))); m.next(); {
		if n++; before == nil && n > maxSearchRows {
			break
		}
		if _, ok := before[m.key]; !wanted[m.key.Entity] || before != nil && !ok {
			continue
		}
		best[m.key] = max(best[m.key], rowScore(word, m.order, m.value))
	}
	for k := range best {
		best[k] += before[k]
	}
	return best
}

// searchRecords adds to each score what the word is worth in the record, and
// drops the records that do not have it.
func (r *Reader) searchRecords(word string, scores map[RecordKey]int) error {
	for k := range scores {
		rec, err := r.Record(k.Entity, k.ID)
		if err != nil {
			return err
		}
		best := 0
		for _, row := range rowsOf(r.Schema().EntityByID(k.Entity), rec) {
			if row.space == spaceWords && bytes.HasPrefix(row.key, []byte(word)) {
				best = max(best, rowScore(word, row.key, row.value))
			}
		}
		if scores[k] += best; best == 0 {
			delete(scores, k)
		}
	}
	return nil
}

// rowScore is what a word of a text is worth that a row's word begins with.
func rowScore(word string, key, value []byte) int {
	return score(bytes.Equal(value, inTitle), len(key) == len(word)+1+keySize)
}

func score(title, whole bool) int {
	switch {
	case title && whole:
		return scoreTitleWhole
	case title:
		return scoreTitle
	case whole:
		return scoreOtherWhole
	}
	return scoreOther
}

func (r *Reader) hits(scores map[RecordKey]int, limit int) ([]Hit, error) {
	keys := make([]RecordKey, 0, len(scores))
	for k := range scores {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b RecordKey) int {
		return cmp.Or(cmp.Compare(scores[b], scores[a]), cmp.Compare(a.Entity, b.Entity), bytes.Compare(b.ID[:], a.ID[:]))
	})
	var out []Hit
	for _, k := range keys[:min(len(keys), limit)] {
		rec, err := r.Record(k.Entity, k.ID)
		if err == nil && present(rec) == 0 {
			err = r.base.f.corrupt(k.String(), errRow)
		}
		if err != nil {
			return out, err
		}
		e := r.Schema().EntityByID(k.Entity)
		out = append(out, Hit{e, rec, e.TitleOf(rec), scores[k]})
	}
	return out, nil
}
