#include "supervise/container_spec.h"

#include <gtest/gtest.h>

#include "config/load.h"

namespace ringmaster::supervise {
namespace {

using nlohmann::json;

const ContainerHost test_host{"abc", "/s/run", "1000:1000"};

config::Config config_with(const std::string& container) {
  auto parsed = config::parse("t",
                              "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\n[pool.web]\nimage = \"shop:17\"\n"
                              "environment = {A = \"1\", PORT = \"99\"}\n[pool.web.container]\n" +
                                  container);
  return std::get<config::Config>(parsed);
}

json spec_of(const config::Config& config) { return container_spec(test_host, {config.pools[0], 2, 7, "Shop-2", {}, {}}); }

TEST(ContainerSpec, GivesNoRightsUnlessTheConfigurationDoes) {
  const json host = spec_of(config_with("")).at("HostConfig");
  EXPECT_EQ(host.at("CapDrop"), json({"ALL"}));
  EXPECT_EQ(host.at("SecurityOpt"), json({"no-new-privileges=true"}));
  EXPECT_EQ(host.at("ReadonlyRootfs"), true);
  EXPECT_EQ(host.at("PidsLimit"), 1024);
  EXPECT_EQ(host.at("Mounts"), json::array());
  EXPECT_FALSE(host.contains("Privileged"));
  EXPECT_FALSE(host.contains("Memory"));
  EXPECT_FALSE(host.contains("PortBindings"));
}

TEST(ContainerSpec, TellsTheServerWhoItIsAndWhereToListen) {
  const json spec = spec_of(config_with("port = 8000\ncommand = [\"serve\", \"{name}.{slot}:{port}\"]\n"));
  EXPECT_EQ(spec.at("Cmd"), json({"serve", "Shop-2.2:8000"}));
  EXPECT_EQ(spec.at("Env"), json({"A=1", "PORT=99", "SERVER_ID=2", "SERVER_NAME=Shop-2"}));  // what is configured counts more
  EXPECT_EQ(spec.at("Hostname"), "Shop-2");
  EXPECT_EQ(spec.at("Labels").at("io.ringmaster.epoch"), "7");
  EXPECT_FALSE(spec.contains("User"));
}

TEST(ContainerSpec, MountsTheFolderOfTheSocketOfThisEpochAlone) {
  const config::Config config = config_with("command = [\"serve\", \"{socket}\"]\n");
  const json spec = spec_of(config);
  EXPECT_EQ(spec.at("Cmd"), json({"serve", "/run/ringmaster/s"}));
  const json mount = {{"Type", "bind"}, {"Source", "/s/run/web.2.7"}, {"Target", "/run/ringmaster"}, {"ReadOnly", false}};
  EXPECT_EQ(spec.at("HostConfig").at("Mounts"), json::array({mount}));
  EXPECT_EQ(spec.at("User"), "1000:1000");  // the engine's, so that it may connect
  EXPECT_EQ(base::to_string(socket_endpoint(test_host, {config.pools[0], 2, 7, "Shop-2", {}, {}})), "unix:/s/run/web.2.7/s");
}

TEST(ContainerSpec, TakesMountsLimitsAndAPublishedPort) {
  const json host =
      spec_of(config_with("mounts = [\"data:/data\", \"/etc/x:/x:ro\"]\nmemory = \"64MiB\"\ncpus = 0.5\nreach = \"published\"\n")).at("HostConfig");
  EXPECT_EQ(host.at("Mounts")[0].at("Type"), "volume");
  EXPECT_EQ(host.at("Mounts")[1], json({{"Type", "bind"}, {"Source", "/etc/x"}, {"Target", "/x"}, {"ReadOnly", true}}));
  EXPECT_EQ(host.at("Memory"), 64 << 20);
  EXPECT_EQ(host.at("NanoCpus"), 500'000'000);
  EXPECT_EQ(host.at("PortBindings").at("8080/tcp")[0].at("HostIp"), "127.0.0.1");
}

TEST(ContainerSpec, IsAnotherConfigurationWhenASettingChangesAndOnlyThen) {
  const auto hash = [](const std::string& container) { return container_config(test_host, config_with(container).pools[0]); };
  EXPECT_EQ(hash("port = 1\n"), hash("port = 1\n"));
  EXPECT_NE(hash("port = 1\n"), hash("port = 2\n"));
  EXPECT_NE(hash(""), hash("user = \"5\"\n"));
  EXPECT_NE(hash(""), hash("mounts = [\"v:/v\"]\n"));
  EXPECT_NE(hash("command = [\"{name}\"]\n"), hash("command = [\"{slot}\"]\n"));
}

}  // namespace
}  // namespace ringmaster::supervise
