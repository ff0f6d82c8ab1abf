package wansim

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
)

//go:embed world_sites.csv
var worldSites string

//go:embed world_rtt_ms.csv
var worldRTT string

// World returns 24 cities on all inhabited continents and the round trips
// measured between them in July 2020; NOTICE tells the source. The two directions
// of a pair are equal in it.
func World() *Matrix {
	m, err := ParseMatrix(strings.NewReader(worldRTT), "world_rtt_ms.csv")
	if err == nil {
		err = m.describe(worldSites)
	}
	if err != nil {
		panic(err) // the tables are part of the program
	}
	return m
}

// describe adds to each site what a table name,city,country,lat,lon says of it.
func (m *Matrix) describe(table string) error {
	r := csv.NewReader(strings.NewReader(table))
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		return err
	}
	for _, row := range rows[1:] {
		i, err := m.find(row[0])
		if err != nil {
			return err
		}
		lat, err := strconv.ParseFloat(row[3], 64)
		if err != nil {
			return fmt.Errorf("latitude of %s: %w", row[0], err)
		}
		lon, err := strconv.ParseFloat(row[4], 64)
		if err != nil {
			return fmt.Errorf("longitude of %s: %w", row[0], err)
		}
		m.Sites[i] = Site{Name: row[0], City: row[1], Country: row[2], Lat: lat, Lon: lon}
	}
	return nil
}
