package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A sample is what one measurement of a workload on a system gave.
type sample struct {
	amount  float64 // bytes, operations, or a value of its own
	elapsed time.Duration
	cpu     time.Duration // of the system
	trips   float64       // round trips, one after another
	down    float64       // bytes that came from the upstream
	peak    float64       // bytes of memory
}

// A summary is the median of samples, by figure.
type summary struct {
	value   float64 // in the unit of the workload
	cpu     float64 // seconds per GiB, or microseconds per operation
	trips   float64 // per operation; of byte workloads, of all
	fetched float64 // bytes from the upstream for each byte of a byte workload
	peak    float64 // bytes of memory
}

// summarize returns the medians of samples of w.
func summarize(w workload, samples []sample) summary {
	of := func(figure func(sample) float64) float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = figure(s)
		}
		return median(values)
	}
	perCPU, operations := 1e6, func(s sample) float64 { return s.amount }
	if w.unit == unitBytes {
		perCPU, operations = 1<<30, func(sample) float64 { return 1 }
	}
	s := summary{
		value: of(w.value),
		cpu:   of(func(s sample) float64 { return s.cpu.Seconds() * perCPU / s.amount }),
		trips: of(func(s sample) float64 { return s.trips / operations(s) }),
		peak:  of(func(s sample) float64 { return s.peak }),
	}
	if w.unit == unitBytes {
		s.fetched = of(func(s sample) float64 { return s.down / s.amount })
	}
	return s
}

// median returns the middle value, or the mean of the two in the middle. It
// is NaN of no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// ratio says how many times better a is than b.
func ratio(a, b float64, lessIsBetter bool) float64 {
	if lessIsBetter {
		a, b = b, a
	}
	return a / b
}

// number formats v with three digits that mean something, and a space
// between thousands.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case abs >= 99.95:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case abs >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case abs == 0:
		return "0"
	}
	return fmt.Sprintf("%.2f", v)
}

func thousands(digits string) string {
	var b strings.Builder
	for i, r := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}
