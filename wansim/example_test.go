package wansim_test

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/tradepost-crm/tradepost/wansim"
)

func Example() {
	matrix, err := wansim.World().Subset("Frankfurt", "Paris")
	if err != nil {
		panic(err)
	}
	network := wansim.New(wansim.Config{Matrix: matrix})
	defer network.Close()

	office, err := network.Host("Frankfurt", "office").Listen("7000")
	if err != nil {
		panic(err)
	}
	start := time.Now()
	dialer, err := network.Host("Paris", "branch").Dial(context.Background(), "office:7000")
	if err != nil {
		panic(err)
	}
	fmt.Println("one round trip has passed:", time.Since(start) >= matrix.RTT("Paris", "Frankfurt"))

	fmt.Fprint(dialer, "bonjour")
	dialer.Close()
	accepted, err := office.Accept()
	if err != nil {
		panic(err)
	}
	text, err := io.ReadAll(accepted)
	fmt.Printf("%s %v\n", text, err)
	for _, l := range network.Links() {
		fmt.Println(l.A, l.B, l.RTT, l.BytesAB, l.BytesBA)
	}
	// Output:
	// one round trip has passed: true
	// bonjour <nil>
	// Frankfurt Paris 10.6788ms 0 7
}
