rpzFile("$zone", {policyName="blocklist"})
