package suite

import (
	"encoding/json"
	"fmt"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// TestInventory prints a JSON line for each test of the suite: which of the gateway profiles it counts for, as the suite
// itself decides it (every feature of the test is one of the profile's), and whether it needs experimental CRDs.
func TestInventory(t *testing.T) {
	profiles := []suite.ConformanceProfile{
		suite.GatewayHTTPConformanceProfile,
		suite.GatewayGRPCConformanceProfile,
		suite.GatewayTLSConformanceProfile,
		suite.GatewayTCPConformanceProfile,
		suite.GatewayUDPConformanceProfile,
	}
	experimental := map[features.FeatureName]bool{}
	for feature := range features.AllFeatures {
		experimental[feature.Name] = feature.Channel == features.FeatureChannelExperimental
	}
	for _, test := range tests.ConformanceTests {
		entry := struct {
			Name         string   `json:"name"`
			Features     []string `json:"features"`
			Profiles     []string `json:"profiles"`
			Experimental bool     `json:"experimental"`
		}{Name: test.ShortName, Features: []string{}, Profiles: []string{}}
		for _, feature := range test.Features {
			entry.Features = append(entry.Features, string(feature))
			entry.Experimental = entry.Experimental || experimental[feature]
		}
		for _, profile := range profiles {
			counts := true
			for _, feature := range test.Features {
				counts = counts && (profile.CoreFeatures.Has(feature) || profile.ExtendedFeatures.Has(feature))
			}
			if counts {
				entry.Profiles = append(entry.Profiles, string(profile.Name))
			}
		}
		line, err := json.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("inventory %s\n", line)
	}
}
