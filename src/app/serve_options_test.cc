#include "app/serve_options.h"

#include <gtest/gtest.h>

namespace varve::app {
namespace {

std::optional<serve_options> parsed(arguments args, int* ended = nullptr) {
    args.insert(args.begin(), "serve");
    int status = -1;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    auto out = parse_serve_options(args, status);
    EXPECT_EQ((testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr()).empty(),
              out.has_value());
    if (ended != nullptr) *ended = status;
    return out;
}

TEST(serve_options, none_are_needed) {
    auto o = parsed({});
    ASSERT_TRUE(o);
    EXPECT_EQ(o->rpc_socket, "/var/tmp/spdk.sock");
    EXPECT_FALSE(o->wait_for_rpc);
    EXPECT_EQ(o->cpus, "");
}

TEST(serve_options, spdk_tgt_command_lines_are_taken) {
    auto o = parsed({"-m",
                     "0x3",
                     "-s",
                     "1024",
                     "-r",
                     "/tmp/s",
                     "-c",
                     "f.json",
                     "-i",
                     "0",
                     "-e",
                     "0xFFFF",
                     "-g",
                     "-u",
                     "-d",
                     "-R",
                     "--huge-dir",
                     "/mnt/huge",
                     "-p",
                     "1",
                     "-A",
                     "0000:00:04.0",
                     "-A",
                     "0000:00:05.0",
                     "-n",
                     "4",
                     "--iova-mode=va",
                     "--num-trace-entries",
                     "0",
                     "--no-huge",
                     "-L",
                     "nvmf",
                     "-L",
                     "bdev",
                     "--silence-noticelog",
                     "--env-context",
                     "--log-level=1",
                     "--interrupt-mode",
                     "--disable-cpumask-locks",
                     "-f",
                     "/tmp/pid",
                     "-S",
                     "/tmp"});
    ASSERT_TRUE(o);
    EXPECT_EQ(o->cpus, "0x3");
    EXPECT_EQ(o->rpc_socket, "/tmp/s");
    EXPECT_EQ(o->config_file, "f.json");
    EXPECT_EQ(o->log_flags, (std::vector<std::string>{"nvmf", "bdev"}));
    EXPECT_TRUE(o->no_huge && o->silence_notices);
    EXPECT_EQ(o->pid_file, "/tmp/pid");
}

TEST(serve_options, long_names) {
    auto o = parsed({"--cpumask=[0,2-3]", "--rpc-socket", "/x", "--wait-for-rpc", "--no-rpc-server", "--busy-poll",
                     "--rpcs-allowed", "a,b", "--logflag", "all", "--mem-size", "512", "--no-pci"});
    ASSERT_TRUE(o);
    EXPECT_EQ(o->cpus, "[0,2-3]");
    EXPECT_TRUE(o->wait_for_rpc && o->no_rpc_server && o->busy_poll);
    EXPECT_EQ(o->allowed_methods, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(parsed({"--lcores", "0,2"})->cpus, "[0,2]");
    EXPECT_EQ(parsed({"--json", "f"})->config_file, "f");
}

TEST(serve_options, mistakes_are_told) {
    int status = -1;
    EXPECT_FALSE(parsed({"--nope"}, &status));
    EXPECT_EQ(status, exit_usage);
    EXPECT_FALSE(parsed({"-c", "f", "--wait-for-rpc"}, &status));
    EXPECT_EQ(status, exit_usage);
    EXPECT_FALSE(parsed({"--help"}, &status));
    EXPECT_EQ(status, exit_ok);
    EXPECT_FALSE(parsed({"-v"}, &status));
    EXPECT_EQ(status, exit_ok);
}

}  // namespace
}  // namespace varve::app
